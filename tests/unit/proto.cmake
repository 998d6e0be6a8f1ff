tern_unit(test_link tern_proto)
