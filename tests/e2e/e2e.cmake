# The programs from outside, by scripts of the Python standard library.  Label: e2e; slow besides for what
# takes more than half a minute.  Those which measure time run alone.
function(tern_e2e name)
    cmake_parse_arguments(arg "SLOW;ALONE" "TIMEOUT" "" ${ARGN})
    if(NOT arg_TIMEOUT)
        set(arg_TIMEOUT 300)
    endif()
    add_test(NAME e2e.${name}
        COMMAND ${PYTHON3} ${CMAKE_CURRENT_SOURCE_DIR}/e2e/${name}.py ${CMAKE_BINARY_DIR})
    set_tests_properties(e2e.${name} PROPERTIES LABELS e2e TIMEOUT ${arg_TIMEOUT} SKIP_RETURN_CODE 77)
    if(arg_SLOW)
        set_property(TEST e2e.${name} APPEND PROPERTY LABELS slow)
    endif()
    if(arg_ALONE)
        set_tests_properties(e2e.${name} PROPERTIES RUN_SERIAL ON)
    endif()
endfunction()

# Peers that misbehave, for what python cannot speak.
add_executable(intruder lab/intruder.c)
target_link_libraries(intruder PRIVATE tern_proto)

# The texts of chat formats, for another hand.
add_executable(chat_texts lab/chat_texts.c)
target_link_libraries(chat_texts PRIVATE tern_engine PkgConfig::JANSSON)

find_program(PYTHON3 python3)
if(PYTHON3)
    tern_e2e(bench ALONE)
    tern_e2e(chat SLOW TIMEOUT 900)
    tern_e2e(chat_templates)
    tern_e2e(chat_terminal ALONE TIMEOUT 900)
    tern_e2e(cli)
    tern_e2e(convert)
    tern_e2e(hostile_files)
    tern_e2e(hostile_peers SLOW ALONE)
    tern_e2e(interrupt ALONE)
    tern_e2e(kill SLOW ALONE)
    # A sanitizer's own memory and time would be measured instead of ours.
    if(NOT TERN_SANITIZE)
        tern_e2e(memory SLOW ALONE)
    endif()
    tern_e2e(same_text SLOW)
    tern_e2e(sentences SLOW ALONE)
    tern_e2e(slices)
    tern_e2e(wiretap)
else()
    message(STATUS "python3 is missing: no end-to-end tests")
endif()
