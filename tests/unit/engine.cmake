tern_unit(test_arch tern_lab m)
tern_unit(test_gguf tern_engine)
tern_unit(test_identity tern_lab PkgConfig::SODIUM)
tern_unit(test_mapping tern_engine)
