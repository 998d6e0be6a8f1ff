/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/pack.h"
