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
# The time of a hop between two of them.
add_executable(lab_hops lab/lab_hops.c)
target_link_libraries(lab_hops PRIVATE tern_peer)
add_library(hop_trace SHARED EXCLUDE_FROM_ALL lab/hop_trace.c)
target_link_libraries(hop_trace PRIVATE tern_flags PkgConfig::ZMQ ${CMAKE_DL_LIBS})
target_include_directories(hop_trace PRIVATE ${CMAKE_CURRENT_SOURCE_DIR})
add_dependencies(lab_hops ternd)

tern_unit(test_worker_protocol tern_stage_line tern_peer)
add_dependencies(test_worker_protocol ternd)

tern_unit(test_worker_run tern_stage_line tern_worker tern_alloc_guard)

tern_unit(test_worker_refusals tern_stage_line tern_peer)
add_dependencies(test_worker_refusals ternd)

tern_unit(test_worker_stall tern_stage_line tern_peer)
add_dependencies(test_worker_stall ternd)
