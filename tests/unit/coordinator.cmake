tern_unit(test_sample tern_coordinator m)
