/*
 * emulated.h - Meson sets EMULATED when the tests run under qemu-user: limits, page faults, what children inherit and the name of the process are the
 * emulator's, and it keeps tables of all that was ever mapped. After cmocka.h.
 */
#ifndef TESTS_SUPPORT_EMULATED_H
#define TESTS_SUPPORT_EMULATED_H

#ifndef EMULATED
#define EMULATED 0
#endif

#define skip_if_emulated(why)                           \
    do {                                                \
        if (EMULATED) {                                 \
            print_message("qemu-user: %s\n", why);      \
            skip();                                     \
        }                                               \
    } while (0)

#endif
