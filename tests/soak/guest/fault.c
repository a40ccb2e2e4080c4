/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Preloaded into stress-ng when its check is to fail: a C library whose
 * tfind() finds nothing.
 */
#include <stddef.h>

void *tfind(const void *key, void *const *root,
            int (*compare)(const void *, const void *));

void *tfind(const void *key, void *const *root,
            int (*compare)(const void *, const void *))
{
    (void)key;
    (void)root;
    (void)compare;
    return NULL;
}
