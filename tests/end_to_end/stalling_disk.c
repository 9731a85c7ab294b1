/* A disk that stalls: preloaded into a node, it makes every write and sync wait while the file
 * "stalled" exists in the process's working directory.
 *
 *     cc -shared -fPIC -O1 -o stalling_disk.so stalling_disk.c -ldl
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static void wait_for_the_disk(void) {
    struct timespec while_waiting = {0, 5 * 1000 * 1000};
    while (access("stalled", F_OK) == 0)
        nanosleep(&while_waiting, 0);
}

int fdatasync(int fd) {
    static int (*real)(int);
    if (!real) real = dlsym(RTLD_NEXT, "fdatasync");
    wait_for_the_disk();
    return real(fd);
}

int fsync(int fd) {
    static int (*real)(int);
    if (!real) real = dlsym(RTLD_NEXT, "fsync");
    wait_for_the_disk();
    return real(fd);
}

#define POSITIONED(name, offset_type, buffer_type, size_type)                          \
    ssize_t name(int fd, buffer_type buffer, size_type size, offset_type offset) {     \
        static ssize_t (*real)(int, buffer_type, size_type, offset_type);              \
        if (!real) real = dlsym(RTLD_NEXT, #name);                                     \
        wait_for_the_disk();                                                           \
        return real(fd, buffer, size, offset);                                         \
    }

POSITIONED(pwrite, off_t, const void *, size_t)
POSITIONED(pwrite64, off64_t, const void *, size_t)
POSITIONED(pwritev, off_t, const struct iovec *, int)
POSITIONED(pwritev64, off64_t, const struct iovec *, int)
