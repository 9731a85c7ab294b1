/* A disk that fails once: loaded before libc, it refuses one call on data.mdb with EIO.
 *
 *   FAIL_CALL   sync   fdatasync: the data may be anywhere, or nowhere
 *               data   a write of pages
 *               meta   the write of a meta page, which makes a transaction count
 *   FAIL_WHEN   the call fails once this file exists; the file then goes, and all is well again
 *   FAIL_LOG    each call on data.mdb from the failed one on is a line in this file
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#define PAGE_BYTES 4096

static int failed;

static int is_data_file(int fd) {
    char link[64], name[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, name, sizeof name - 1);
    if (length < 0)
        return 0;
    name[length] = 0;
    return strstr(name, "/data.mdb") != NULL;
}

static void note(const char *call) {
    const char *path = getenv("FAIL_LOG");
    int log = path ? open(path, O_WRONLY | O_CREAT | O_APPEND, 0644) : -1;
    if (log >= 0) {
        dprintf(log, "%s\n", call);
        close(log);
    }
}

static int fails(const char *call, int fd) {
    const char *wanted = getenv("FAIL_CALL"), *when = getenv("FAIL_WHEN");
    if (!wanted || !when || !is_data_file(fd))
        return 0;
    if (failed) {
        note(call);
        return 0;
    }
    if (strcmp(call, wanted) != 0 || access(when, F_OK) != 0)
        return 0;
    failed = 1;
    note(call);
    unlink(when);
    errno = EIO;
    return 1;
}

int fdatasync(int fd) {
    static int (*real)(int);
    if (!real)
        real = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    return fails("sync", fd) ? -1 : real(fd);
}

ssize_t pwrite(int fd, const void *data, size_t count, off_t at) {
    static ssize_t (*real)(int, const void *, size_t, off_t);
    if (!real)
        real = (ssize_t (*)(int, const void *, size_t, off_t))dlsym(RTLD_NEXT, "pwrite");
    return fails(count < PAGE_BYTES ? "meta" : "data", fd) ? -1 : real(fd, data, count, at);
}

ssize_t pwrite64(int fd, const void *data, size_t count, off64_t at) {
    static ssize_t (*real)(int, const void *, size_t, off64_t);
    if (!real)
        real = (ssize_t (*)(int, const void *, size_t, off64_t))dlsym(RTLD_NEXT, "pwrite64");
    return fails(count < PAGE_BYTES ? "meta" : "data", fd) ? -1 : real(fd, data, count, at);
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    static ssize_t (*real)(int, const struct iovec *, int);
    if (!real)
        real = (ssize_t (*)(int, const struct iovec *, int))dlsym(RTLD_NEXT, "writev");
    return fails("data", fd) ? -1 : real(fd, parts, count);
}
