# Tiny models of every family, made by scripts of the Python standard library into the build directory, and
# the tests that hold them against the goldens of the oracle.
if(PYTHON3)
    set(oracle_dir ${CMAKE_BINARY_DIR}/oracle)
    add_test(NAME oracle.models COMMAND ${PYTHON3} ${CMAKE_CURRENT_SOURCE_DIR}/oracle/make.py ${oracle_dir})
    set_tests_properties(oracle.models PROPERTIES LABELS unit TIMEOUT 300 FIXTURES_SETUP oracle_models)

    tern_unit(test_oracle tern_coordinator tern_alloc_guard m)
    target_compile_definitions(test_oracle PRIVATE TERN_ORACLE_DIR="${oracle_dir}")
    set_tests_properties(unit.test_oracle PROPERTIES FIXTURES_REQUIRED oracle_models)
endif()
