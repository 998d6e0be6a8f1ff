# The programs from outside, by scripts of the Python standard library.  Label: e2e; slow besides for what
# takes more than half a minute.  ALONE is for what others would falsify, and takes the time of all CPUs: what
# measures how soon something happens has several tries instead.
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
    tern_e2e(chat SLOW TIMEOUT 900)
    tern_e2e(chat_server)
    tern_e2e(chat_templates)
    tern_e2e(cli)
    tern_e2e(convert)
    tern_e2e(embed)
    tern_e2e(families)
    tern_e2e(forms)
    tern_e2e(grammar_text)
    tern_e2e(convert_models SLOW TIMEOUT 900)
    tern_e2e(hostile_files)
    tern_e2e(inspect_verify)
    tern_e2e(interrupt)
    tern_e2e(json_schemas)
    tern_e2e(llama_routes)
    # Once is enough for these, either as users run it ...
    if(NOT TERN_SANITIZE)
        tern_e2e(bench SLOW TIMEOUT 900) # figures; bench_streams runs the same command
        tern_e2e(kill SLOW) # how soon a death is noticed; ways of failing are test_pipe's and serve_kill's
        tern_e2e(memory SLOW ALONE) # a sanitizer's own would be measured
        tern_e2e(network) # what is in the kernel
        tern_e2e(page) # the browser's work; what the server does for it is asked for by status_top
        tern_e2e(serve_identity SLOW) # 500 requests would take minutes
    else()
        # ... or where memory is watched: what strangers send, what is said, what has no arithmetic.
        tern_e2e(bench_streams)
        tern_e2e(chat_terminal TIMEOUT 900)
        tern_e2e(delay_proxy)
        tern_e2e(hostile_peers SLOW)
        tern_e2e(page_alone)
        tern_e2e(pull)
        tern_e2e(sentences SLOW)
    endif()
    tern_e2e(openai_client)
    tern_e2e(perplexity)
    tern_e2e(same_text SLOW)
    tern_e2e(serve_load)
    tern_e2e(serve_kill)
    tern_e2e(serve_start)
    tern_e2e(slices)
    tern_e2e(token_ids)
    tern_e2e(status_top)
    tern_e2e(tiny_models SLOW TIMEOUT 900)
    set_tests_properties(e2e.tiny_models PROPERTIES FIXTURES_REQUIRED oracle_models)
    tern_e2e(wiretap)
else()
    message(STATUS "python3 is missing: no end-to-end tests")
endif()
