/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every hard limit of Tern, each with the reason for its value.  A larger input is refused with a sentence.
 */
#ifndef TERN_ENGINE_BASE_LIMITS_H
#define TERN_ENGINE_BASE_LIMITS_H

/* Model files.  The largest ternary models planned for have 72 layers of 8192. */
#define TERN_MAX_LAYERS        512
#define TERN_MAX_EMBD          32768
#define TERN_MAX_FFN           131072
#define TERN_MAX_HEADS         512
#define TERN_MAX_HEAD_DIM      512
#define TERN_MAX_VOCAB         1048576
#define TERN_MAX_CONTEXT       1048576
#define TERN_MAX_TENSORS       65536     /* 512 layers of 20 tensors is a sixth of it */
#define TERN_MAX_KEYS          65536     /* metadata keys in one file */
#define TERN_MAX_PARTS         512       /* of a split file; each stays open, and a process may open 1024 */
#define TERN_MAX_TENSOR_NAME   255       /* ggml itself stops at 63 */
#define TERN_MAX_HF_HEADER     8388608   /* of a safetensors file; parsing takes up to 32 times this */
#define TERN_MAX_HF_JSON       4194304   /* config.json and its like; a tokenizer_config.json has 1.2 MB */
#define TERN_MAX_HF_TOKENIZER  67108864  /* one file; that of 262144 tokens and 514906 merges has 33 MB */
#define TERN_MAX_HF_MEMORY     536870912 /* parsing one file; the same one takes 200 MB */
#define TERN_MAX_HF_SHARDS     256       /* a file and a mapping are held open for each */
#define TERN_MAX_TOKEN_BYTES   4096
#define TERN_MAX_SPECIAL_BYTES 255       /* one special token's text; real ones have at most 40 */
#define TERN_MAX_SPECIAL_TOTAL 4194304   /* all of them: the trie over them takes 12 times this */
#define TERN_MAX_TEXT_BYTES    268435456 /* one text to tokenize; takes up to 30 times this */
#define TERN_MAX_PIECE_BYTES   16777216  /* one word of it; merging takes 50 times this */

/* KV cache: positions per page.  A page is also the block of the attention's fixed fold order, so this
 * number is part of the arithmetic contract and of the wire. */
#define TERN_PAGE 32
/* Pages of a span, and positions: spans are folded on their own and then together, so that threads can share
 * one long sequence.  Part of the arithmetic contract too. */
#define TERN_SPAN_PAGES 8
#define TERN_SPAN       (TERN_SPAN_PAGES * TERN_PAGE)

/* One step through the pipeline. */
#define TERN_MAX_STEP_ROWS       512 /* rows of activations */
#define TERN_MAX_STEP_RUNS       64  /* runs of rows, one per sequence */
#define TERN_MAX_STEP_OPS        64  /* slot operations that ride along */
#define TERN_MAX_SLOTS           256 /* sequences with a KV at one time */
#define TERN_MAX_WORKERS         64  /* stages in one pipeline */
#define TERN_MAX_STEPS_IN_FLIGHT 64  /* 50 ms of delay each way over steps of 2 ms */

/* Wire.  libzmq has one MAXMSGSIZE for both sides of the handshake, so this is also what a stranger can
 * make us buffer. */
#define TERN_MAX_HEADER_BYTES        32768  /* the protobuf frame */
#define TERN_MAX_PAYLOAD_BYTES       262144 /* the raw frame */
#define TERN_MAX_NAME_BYTES          63     /* a worker's or coordinator's name */
#define TERN_MAX_ENDPOINT_BYTES      255
#define TERN_MAX_TENSORS_PER_MESSAGE 128
#define TERN_HASH_BYTES              32 /* BLAKE2b-256 */
#define TERN_KEY_BYTES               32 /* Curve25519 */
#define TERN_Z85_CHARS               40

#endif
