# The stage on the model of this repository.
add_library(tern_stage_line STATIC lab/stage_line.c)
target_link_libraries(tern_stage_line PUBLIC tern_stage PkgConfig::CMOCKA)
target_include_directories(tern_stage_line PUBLIC ${CMAKE_CURRENT_SOURCE_DIR})
target_compile_definitions(tern_stage_line PRIVATE TERN_SOURCE_DIR="${CMAKE_SOURCE_DIR}")
tern_unit(test_stage tern_stage_line tern_alloc_guard)
tern_unit(test_stage_failures tern_stage_line tern_alloc_guard)

# Real ternd processes.
add_library(tern_peer STATIC lab/peer.c)
target_link_libraries(tern_peer PUBLIC tern_engine tern_proto PkgConfig::CMOCKA)
target_include_directories(tern_peer PUBLIC ${CMAKE_CURRENT_SOURCE_DIR})
target_compile_definitions(tern_peer PRIVATE TERN_SOURCE_DIR="${CMAKE_SOURCE_DIR}"
    TERN_BIN_DIR="${CMAKE_RUNTIME_OUTPUT_DIRECTORY}")
tern_unit(test_worker_protocol tern_stage_line tern_peer)
add_dependencies(test_worker_protocol ternd)

tern_unit(test_worker_refusals tern_stage_line tern_peer)
add_dependencies(test_worker_refusals ternd)
