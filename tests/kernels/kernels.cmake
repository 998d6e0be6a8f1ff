# The kernel checks: every level this CPU has against the reference, and the vector levels once more as portable C.
add_executable(check kernels/check.c kernels/check_dot.c kernels/check_rows.c kernels/check_ternary.c
    kernels/check_util.c)
target_link_libraries(check PRIVATE tern_kernels tern_flags m)
add_test(NAME kernels.check COMMAND check)
set_tests_properties(kernels.check PROPERTIES LABELS kernels TIMEOUT 600 SKIP_RETURN_CODE 77)
