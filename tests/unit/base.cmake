tern_unit(test_base tern_base)
tern_unit(test_boundary tern_engine m)
tern_unit(test_kv tern_engine)
tern_unit(test_threads tern_engine)
