# The house rules as tests, and for each a second one which proves that it can fail (self_test.sh).
# Label: lint.  The names in objects depend on the build; all else is read in the build with sanitizers alone.
function(tern_lint name)
    add_test(NAME lint.${name} COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/lint/${name}.sh ${ARGN})
    set_tests_properties(lint.${name} PROPERTIES LABELS lint TIMEOUT 120)
    if(NOT TERN_SANITIZE)
        return()
    endif()
    add_test(NAME lint.${name}.finds
        COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/lint/self_test.sh ${name} ${CMAKE_C_COMPILER})
    set_tests_properties(lint.${name}.finds PROPERTIES LABELS lint TIMEOUT 120)
endfunction()

tern_lint(names ${CMAKE_BINARY_DIR})
if(NOT TERN_SANITIZE)
    return()
endif()
tern_lint(layers ${CMAKE_SOURCE_DIR})
tern_lint(unique ${CMAKE_SOURCE_DIR})
tern_lint(functions ${CMAKE_SOURCE_DIR})
tern_lint(text ${CMAKE_SOURCE_DIR})
tern_lint(tour ${CMAKE_SOURCE_DIR})
# gcc, whatever the build uses: one compiler says what a header lacks, the other builds it anyway.
tern_lint(headers ${CMAKE_SOURCE_DIR} ${CMAKE_BINARY_DIR} gcc)
