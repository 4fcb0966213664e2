/* top_none.c - shms top where it was built without ncursesw. */
#include <stdio.h>

#include "shms.h"

int command_top(const struct shms *shms)
{
    (void)shms;
    fputs("shms: this one was built without ncursesw, which top needs: use ls, watch or metrics\n", stderr);
    return EXIT_USAGE;
}
