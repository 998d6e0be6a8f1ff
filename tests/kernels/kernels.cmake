# The kernel checks: every level this CPU has against the reference, and the vector levels once more as
# portable C.
set(TERN_CHECK_SOURCES kernels/check.c kernels/check_dot.c kernels/check_probe.c kernels/check_rows.c
    kernels/check_screen.c kernels/check_ternary.c kernels/check_util.c)

add_executable(check ${TERN_CHECK_SOURCES})
target_link_libraries(check PRIVATE tern_kernels tern_flags m)
add_test(NAME kernels.check COMMAND check)
set_tests_properties(kernels.check PROPERTIES LABELS kernels TIMEOUT 600 SKIP_RETURN_CODE 77)

# SIMDe turns the intrinsics into plain C, so the AVX-512 level's logic is tested on CPUs without it.  No
# sanitizers: they would make millions of emulated vectors slower, and the guard pages of the harness watch
# memory all the same.  So these are the same programs in every build, and made in the dev build alone.
include(CheckIncludeFile)
check_include_file(simde/x86/avx512.h TERN_HAVE_SIMDE)
if(NOT TERN_SANITIZE MATCHES "address")
    # It takes long to compile.
elseif(TERN_HAVE_SIMDE)
    set(dir ${CMAKE_SOURCE_DIR}/kernels)
    set(flags -O1 -w -Wno-psabi -ffp-contract=off -fno-strict-aliasing)
    add_library(check_simde_levels OBJECT ${dir}/kernels_avx2.c ${dir}/kernels_avx512.c
        ${dir}/kernels_avx512vbmi.c ${dir}/kernels_avxvnni.c)
    target_include_directories(check_simde_levels PRIVATE ${CMAKE_SOURCE_DIR})
    target_compile_definitions(check_simde_levels PRIVATE TERN_SIMDE)
    target_compile_options(check_simde_levels PRIVATE ${flags}
        -include ${CMAKE_CURRENT_SOURCE_DIR}/kernels/simde_shim.h)
    add_executable(check_simde ${TERN_CHECK_SOURCES} ${dir}/cpu.c ${dir}/dequant.c ${dir}/exact_math.c
        ${dir}/kernels_dotprod.c ${dir}/kernels_i8mm.c ${dir}/kernels_init.c ${dir}/kernels_neon.c
        ${dir}/kernels_ref.c ${dir}/pack.c ${dir}/pack_file.c ${dir}/pack_float.c ${dir}/pack_open.c
        ${dir}/pack_tl.c)
    target_include_directories(check_simde PRIVATE ${CMAKE_SOURCE_DIR})
    target_compile_definitions(check_simde PRIVATE _GNU_SOURCE CHECK_EMULATED)
    target_compile_options(check_simde PRIVATE ${flags})
    target_link_libraries(check_simde PRIVATE check_simde_levels m)
    foreach(level avx2 avxvnni avx512 avx512vbmi)
        add_test(NAME kernels.simde_${level} COMMAND check_simde --level=${level})
        set_tests_properties(kernels.simde_${level} PROPERTIES LABELS kernels TIMEOUT 600)
    endforeach()
else()
    message(STATUS "libsimde-dev is not installed: the vector levels are only tested on CPUs that have them")
endif()

include(${CMAKE_CURRENT_SOURCE_DIR}/kernels/check_arm.cmake)

tern_unit(test_exact_math tern_kernels m)
tern_unit(test_kernels tern_kernels m)
tern_unit(test_pack tern_kernels PkgConfig::SODIUM m)
tern_unit(test_pack_forms tern_kernels m)
