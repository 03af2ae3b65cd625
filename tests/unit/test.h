/* What every unit test includes: cmocka wants these headers, in this order, before its own. */
#ifndef TEST_H
#define TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#undef fail /* err.h's is meant */

#include "src/vmm/base.h"

#endif
