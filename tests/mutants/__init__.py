"""Known bugs of real systems, switched on one at a time, and who catches each of them.

edit       changes a function of the product by its text, for as long as a patch lasts
mutant     the register: a small function per bug, whose docstring names the accident
judges     what a mutant is shown to: simulations, seed after seed, until one objects
<others>   the bugs, by the part of the product that they are in
"""
