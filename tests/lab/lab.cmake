# Helpers that make what tests need: a library for unit tests, and the program make_model for scripts.  Not
# installed.
add_library(tern_lab STATIC
    lab/lab_copy.c lab/lab_outliers.c lab/lab_synthetic.c)
target_link_libraries(tern_lab PUBLIC tern_flags tern_engine PRIVATE m)
target_include_directories(tern_lab PUBLIC ${CMAKE_SOURCE_DIR}/tests)

add_executable(make_model lab/make_model.c)
target_link_libraries(make_model PRIVATE tern_lab)

# Where the time of the layers goes; the linker lets it time the pool's calls.
add_executable(lab_walk lab/lab_walk.c)
target_link_libraries(lab_walk PRIVATE tern_stage tern_flags)
target_link_options(lab_walk PRIVATE -Wl,--wrap=tern_pool_run)

# Links with a delay, jitter, a rate and stalls.
add_library(tern_delay STATIC lab/delay_relay.c lab/delay_shape.c)
target_include_directories(tern_delay PUBLIC ${CMAKE_SOURCE_DIR}/tests)
target_link_libraries(tern_delay PUBLIC tern_flags)
add_executable(delay_proxy lab/delay_proxy.c lab/delay_calibrate.c)
target_link_libraries(delay_proxy PRIVATE tern_delay Threads::Threads)
# Random words of grammars, and how long their masks take.
add_executable(grammar_words lab/grammar_words.c)
target_link_libraries(grammar_words PRIVATE tern_coordinator)
