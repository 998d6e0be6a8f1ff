add_library(wire_samples STATIC golden/wire_samples.c)
target_link_libraries(wire_samples PUBLIC tern_flags tern_proto)
target_include_directories(wire_samples PUBLIC ${CMAKE_SOURCE_DIR}/tests)

tern_unit(test_link tern_proto)
tern_unit(test_link_flood tern_proto)
tern_unit(test_step tern_proto)
tern_unit(test_wire wire_samples)
tern_unit(test_wire_golden wire_samples)
