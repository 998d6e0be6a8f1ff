# tern_fuzz(NAME LIBS...): the fuzz target tests/fuzz/fuzz_NAME.c, which defines LLVMFuzzerTestOneInput
# (fuzz/fuzz.h).
#   fuzz_NAME_replay  runs a corpus without a fuzzer; always built; the test fuzz.NAME replays
#                     tests/fuzz/corpus/NAME/.
#   fuzz_NAME         libFuzzer; only with -DTERN_FUZZ=ON (preset fuzz, clang).
# NAME may be given with or without the prefix fuzz_.  Run a fuzzer like this, then merge what it found:
#   build/fuzz/bin/fuzz_NAME -max_total_time=600 new/ tests/fuzz/corpus/NAME/
#   build/fuzz/bin/fuzz_NAME -merge=1 tests/fuzz/corpus/NAME/ new/
function(tern_fuzz name)
    string(REGEX REPLACE "^fuzz_" "" short ${name})
    set(targets fuzz_${short}_replay)
    add_executable(fuzz_${short}_replay fuzz/fuzz_${short}.c fuzz/replay.c)
    if(TERN_FUZZ)
        add_executable(fuzz_${short} fuzz/fuzz_${short}.c)
        target_link_options(fuzz_${short} PRIVATE -fsanitize=fuzzer)
        list(APPEND targets fuzz_${short})
    endif()
    foreach(target ${targets})
        target_link_libraries(${target} PRIVATE ${ARGN} tern_flags)
        target_include_directories(${target} PRIVATE ${CMAKE_SOURCE_DIR}/tests)
    endforeach()
    add_test(NAME fuzz.${short} COMMAND fuzz_${short}_replay ${CMAKE_SOURCE_DIR}/tests/fuzz/corpus/${short})
    set_tests_properties(fuzz.${short} PROPERTIES LABELS fuzz TIMEOUT 300)
endfunction()

# One line for each target, sorted.
tern_fuzz(api tern_coordinator m)
tern_fuzz(chat tern_coordinator)
tern_fuzz(gguf tern_engine m)
tern_fuzz(grammar tern_coordinator)
tern_fuzz(hf_config tern_engine m)
tern_fuzz(safetensors tern_engine m)
tern_fuzz(hf_tokenizer tern_engine PkgConfig::JANSSON)
tern_fuzz(http tern_coordinator)
tern_fuzz(pull tern_coordinator)
tern_fuzz(schema tern_coordinator)
tern_fuzz(split tern_engine)
tern_fuzz(sse tern_coordinator)
tern_fuzz(tokenizer tern_engine)
tern_fuzz(worker tern_worker)
foreach(target fuzz_worker fuzz_worker_replay)
    if(TARGET ${target})
        target_compile_definitions(${target} PRIVATE TERN_SOURCE_DIR="${CMAKE_SOURCE_DIR}")
    endif()
endforeach()
tern_fuzz(wire tern_proto)
