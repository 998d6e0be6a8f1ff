tern_unit(test_gguf tern_engine)
tern_unit(test_mapping tern_engine)
