tern_unit(test_chat_options tern_coordinator)
tern_unit(test_cluster tern_pipe)
tern_unit(test_cluster_spec tern_pipe)
tern_unit(test_generate tern_coordinator m)
tern_unit(test_golden tern_coordinator tern_alloc_guard m)
tern_unit(test_grammar tern_coordinator tern_alloc_guard)
tern_unit(test_head tern_coordinator tern_lab tern_alloc_guard m)
tern_unit(test_pipe tern_pipe tern_alloc_guard)
add_dependencies(test_pipe ternd)
# Serial: it measures how soon a death is noticed.  With the thread sanitizer it takes minutes.
set_tests_properties(unit.test_pipe PROPERTIES RUN_SERIAL ON TIMEOUT 600)
tern_unit(test_progress tern_pipe)
tern_unit(test_pull tern_coordinator)
tern_unit(test_run_options tern_coordinator)
tern_unit(test_sample tern_coordinator m)
tern_unit(test_sched tern_coordinator tern_alloc_guard)
tern_unit(test_transcript tern_coordinator)

# The screened head's tokens in 20,000 contexts of a text.
add_executable(head_contexts lab/head_contexts.c)
target_link_libraries(head_contexts PRIVATE tern_coordinator)
add_test(NAME lab.head_contexts COMMAND head_contexts ${CMAKE_SOURCE_DIR}/deploy/models/fable.gguf
    ${CMAKE_SOURCE_DIR}/tests/golden/fable_validation.txt 20000 2)
set_tests_properties(lab.head_contexts PROPERTIES LABELS slow TIMEOUT 1800)
