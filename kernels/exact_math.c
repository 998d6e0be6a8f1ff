/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/exact_math.h"
