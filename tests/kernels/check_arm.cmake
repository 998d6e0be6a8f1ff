# The ARM levels on other machines: the kernels and `check` built with a cross compiler, linked statically and
# run by qemu's user-mode emulation.  Always optimised as in a release and without sanitizers, whatever the
# preset: the loops under test are those that users run.  So they are made in the dev build alone.
find_program(TERN_ARM_CC aarch64-linux-gnu-gcc)
find_program(TERN_QEMU_ARM NAMES qemu-aarch64 qemu-aarch64-static)
if(CMAKE_SYSTEM_PROCESSOR MATCHES "aarch64|arm64" OR NOT TERN_SANITIZE MATCHES "address")
    return() # check itself runs them there
elseif(NOT TERN_ARM_CC OR NOT TERN_QEMU_ARM)
    message(STATUS "gcc-aarch64-linux-gnu or qemu-user is not installed: the ARM levels are not tested")
    return()
endif()
# The compiler alone is not enough: a static C library has to be there, and its intrinsics for i8mm.
if(NOT TERN_ARM_WORKS)
    set(try ${CMAKE_CURRENT_BINARY_DIR}/check_arm_try)
    file(WRITE ${try}.c "#include <arm_neon.h>\n#include <math.h>\n#include <stdio.h>\n"
        "int main(int n, char **v)\n{\n"
        "    int32x4_t a = vusmmlaq_s32(vdupq_n_s32(n), vdupq_n_u8(1), vdupq_n_s8(1));\n"
        "    return v && printf(\"%f\", sqrt(n)) + vgetq_lane_s32(a, 0) < 0;\n}\n")
    execute_process(COMMAND ${TERN_ARM_CC} ${TERN_I8MM_FLAGS} -static ${try}.c -lm -o ${try}
        RESULT_VARIABLE failed OUTPUT_QUIET ERROR_QUIET)
    if(NOT failed EQUAL 0)
        message(STATUS "${TERN_ARM_CC} cannot build a static program with int8 matrices (is "
            "libc6-dev-arm64-cross missing?): the ARM levels are not tested")
        return()
    endif()
    set(TERN_ARM_WORKS ON CACHE INTERNAL "")
endif()

set(arm_flags -std=c11 -O3 -g1 -D_GNU_SOURCE -I${CMAKE_SOURCE_DIR} -ffp-contract=off -fno-strict-aliasing
    -fno-common -Wall -Wextra)
if(TERN_WERROR)
    list(APPEND arm_flags -Werror)
endif()
get_target_property(arm_sources tern_kernels SOURCES)
list(TRANSFORM arm_sources PREPEND ${CMAKE_SOURCE_DIR}/kernels/)
foreach(source ${TERN_CHECK_SOURCES})
    list(APPEND arm_sources ${CMAKE_CURRENT_SOURCE_DIR}/${source})
endforeach()
set(arm_objects)
file(MAKE_DIRECTORY ${CMAKE_CURRENT_BINARY_DIR}/check_arm.dir)
foreach(source ${arm_sources})
    get_filename_component(name ${source} NAME_WE)
    string(REGEX REPLACE "^kernels_" "" level ${name})
    string(TOUPPER ${level} level)
    set(object ${CMAKE_CURRENT_BINARY_DIR}/check_arm.dir/${name}.o)
    add_custom_command(OUTPUT ${object}
        COMMAND ${TERN_ARM_CC} ${arm_flags} ${TERN_${level}_FLAGS} -MD -MF ${object}.d -c ${source}
            -o ${object}
        DEPENDS ${source} DEPFILE ${object}.d COMMENT "Building ${name}.o for ARM" VERBATIM)
    list(APPEND arm_objects ${object})
endforeach()
set(check_arm ${CMAKE_CURRENT_BINARY_DIR}/check_arm)
add_custom_command(OUTPUT ${check_arm}
    COMMAND ${TERN_ARM_CC} -static ${arm_objects} -lm -o ${check_arm}
    DEPENDS ${arm_objects} COMMENT "Linking check_arm" VERBATIM)
add_custom_target(check_arm_build ALL DEPENDS ${check_arm})

# Each level on the oldest core that has it, so that an instruction of a higher one faults: a Cortex-A72
# (Raspberry Pi 4), a Cortex-A76 (Pi 5), and all that qemu knows.
foreach(pair neon:cortex-a72 dotprod:cortex-a76 i8mm:max)
    string(REPLACE ":" ";" pair ${pair})
    list(GET pair 0 level)
    list(GET pair 1 cpu)
    add_test(NAME kernels.arm_${level} COMMAND ${TERN_QEMU_ARM} -cpu ${cpu} ${check_arm} --level=${level})
    set_tests_properties(kernels.arm_${level} PROPERTIES LABELS kernels TIMEOUT 600)
endforeach()
# And the levels that a core lacks are known as such.
foreach(pair dotprod:cortex-a72 i8mm:cortex-a76)
    string(REPLACE ":" ";" pair ${pair})
    list(GET pair 0 level)
    list(GET pair 1 cpu)
    add_test(NAME kernels.arm_without_${level}
        COMMAND ${TERN_QEMU_ARM} -cpu ${cpu} ${check_arm} --level=${level})
    set_tests_properties(kernels.arm_without_${level} PROPERTIES LABELS kernels TIMEOUT 60
        PASS_REGULAR_EXPRESSION "${level} +SKIPPED: this CPU does not have it")
endforeach()
