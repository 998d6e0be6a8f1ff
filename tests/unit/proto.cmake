tern_unit(test_link tern_proto)
tern_unit(test_link_flood tern_proto)
