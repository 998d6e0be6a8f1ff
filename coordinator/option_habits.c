/* SPDX-License-Identifier: Apache-2.0 */
/* Options of llama.cpp, llama-server and Ollama: see option_habits.h. */
#include "coordinator/option_habits.h"

#include "engine/option_next.h"

#include <string.h>

#define ASKERS  "chat status top"
#define WRITERS "run chat"

/* The first that fits counts. */
static const struct tern_option_habit habits[] = {
    /* machines */
    { "-ngl --gpu-layers --n-gpu-layers -mg --main-gpu -sm --split-mode -dev --device", NULL,
      "Tern computes on CPUs alone; leave it out" },
    { "-ts --tensor-split", NULL,
      "write --split A,B,... with --local N, or layers=A-B on each line of the --cluster file" },
    { "--rpc --workers --nodes", NULL, "workers stand in a file, one a line: --cluster FILE --key FILE" },
    { "--nthreads -tb --threads-batch", NULL, "write -t N; it is for prompts and answers alike" },
    { "-C --cpu-mask -Cr --cpu-range --cpu-strict --prio --poll --numa", NULL,
      "use taskset or numactl; Tern takes the CPUs it is given" },
    /* memory and arithmetic */
    { "-fa --flash-attn -nkvo --no-kv-offload -nr --no-repack --op-offload -kvu --kv-unified", NULL,
      "there is no such choice here; leave it out" },
    { "-ctk --cache-type-k -ctv --cache-type-v", NULL, "write --kv f16 or --kv int8" },
    { "--mlock --mmap --no-mmap -dio --direct-io", NULL,
      "weights are laid out anew in memory when they are loaded; leave it out" },
    { "-b --batch-size -ub --ubatch-size", "run chat serve embed perplexity",
      "how much of a prompt goes into a step is chosen by measurement; --chunk ROWS fixes it" },
    { "-ub --ubatch-size", "bench", "write --chunk ROWS" },
    { "--max-seq-len --num-ctx", "run chat serve", "write -c N" },
    /* models */
    { "-hf -hfr --hf-repo -hff --hf-file -mu --model-url -dr --docker-repo", NULL,
      "get the model first: -m \"$(tern pull ORG/NAME)\"" },
    { "-md --model-draft -hfd --draft --draft-max --draft-n -cd --ctx-size-draft -devd -ngld", NULL,
      "there are no draft models here; leave it out" },
    { "--lora --lora-scaled --control-vector -mm --mmproj --image", NULL,
      "Tern has no adapters and no images" },
    { "--jinja --no-jinja --chat-template-file --chat-template-kwargs", "chat serve",
      "the forms of conversations are built in; --chat-template NAME chooses one" },
    { "-a", "serve", "write --alias NAME" },
    /* servers */
    { "--api-key", NULL,
      "everybody on this machine can read a command line; write the key into a file (chmod 600) and give "
      "--api-key-file FILE" },
    { "-np", "serve", "write --parallel N" },
    { "-np -ns --sequences", "run chat", "several prompts are computed together: give several -p" },
    { "-np -npl", "bench", "write --streams N,..." },
    { "-cb --cont-batching", NULL, "requests are always computed together; leave it out" },
    { "-nocb --no-cont-batching", NULL, "write --parallel 1 to compute one request at a time" },
    { "--metrics --slots --props", "serve", "/metrics, /slots and /props are always there; leave it out" },
    { "--no-slots --path --api-prefix --ui --webui-config --webui-config-file", "serve",
      "routes and page are fixed; --no-page leaves out the page" },
    { "--embedding --embeddings", "serve", "/v1/embeddings is always there; leave it out" },
    { "--rerank --reranking", "serve", "Tern does not rerank" },
    { "-to --timeout", "serve",
      "an answer may take as long as it does, and whoever hangs up frees its slot; leave it out" },
    { "--threads-http", "serve", "write --max-connections N" },
    { "--cache-reuse --cache-ram -cram --slot-save-path --cache-prompt --no-cache-prompt", "serve",
      "earlier requests are kept in the KV cache; --prefixes N says of how many" },
    { "--no-context-shift", "serve run chat", "that is how it is unless --context-shift is given" },
    { "--temp --temperature --top-k --top-p --min-p --repeat-penalty --repeat-last-n --presence-penalty "
      "--frequency-penalty -s --seed --samplers --sampling-seq --logit-bias -l --grammar --grammar-file "
      "-j --json-schema --json-schema-file --stop -r --ignore-eos",
      "serve", "each request says this for itself, in its JSON" },
    { "--host --port -u --url", ASKERS, "write --server http://HOST:PORT" },
    /* conversations and texts */
    { "-cnv --conversation -i --interactive -if --interactive-first -ins --instruct -sys --system-prompt",
      "run", "conversations are for `tern chat`" },
    { "-no-cnv --no-conversation -st --single-turn", "run", "that is what `tern run` does; leave it out" },
    { "-cnv --conversation -i --interactive -if --interactive-first", "chat",
      "that is what `tern chat` does; leave it out" },
    { "-no-cnv --no-conversation", "chat", "to go on with a text use `tern run`" },
    { "-st --single-turn", "chat", "write -p TEXT: it ends after the answer" },
    { "-sys", "chat", "write --system TEXT" },
    { "-sysf --system-prompt-file", "chat", "write --system-file FILE" },
    { "-e --escape --no-escape", WRITERS,
      "\\n in a text is no newline; a text with newlines goes into -f FILE" },
    { "-j", WRITERS, "write --json-schema JSON" },
    { "-l", WRITERS, "write --logit-bias ID+V" },
    { "--temperature", WRITERS, "write --temp T" },
    { "--samplers --sampling-seq --mirostat --typical --typical-p --xtc-probability --dry-multiplier "
      "--dynatemp-range --top-nsigma",
      WRITERS, "Tern draws by top-k, top-p, min-p and --temp, in this order" },
    /* output */
    { "--log-disable", NULL, "write -q" },
    { "-v -lv --log-verbose --log-verbosity", NULL, "write --verbose" },
    { "--log-file", NULL, "figures and errors go to stderr: write 2>FILE" },
    { "--warmup --no-warmup --perf --no-perf --color --colors -co --simple-io --log-colors "
      "--no-display-prompt --offline",
      NULL, "there is no such choice here; leave it out" },
    { "-V --version", NULL, "that is `tern --version`" },
};

static const struct {
    const char *words, *advice;
} commands[] = {
    { " server start ", "`tern serve` answers over HTTP" },
    { " list ls models ",
      "`tern pull ORG/NAME` prints where a model lies, under ~/.local/share/tern/models" },
    { " ps ", "`tern status` shows what a server does" },
    { " show info ", "`tern inspect -m FILE` shows a model" },
    { " create quantize ", "`tern convert` writes models" },
    { " rm delete cp ", "models are files, under ~/.local/share/tern/models" },
    { " stop ", "Ctrl-C and SIGTERM end `tern serve`" },
    { " generate completion cli ", "`tern run` goes on with a text" },
    { " worker node daemon rpc ", "workers are started with `ternd`" },
    { " ppl ", "`tern perplexity` measures how well a model predicts a text" },
    { " embedding embeddings ", "`tern embed` turns texts into vectors" },
    { " key ", "`tern keygen` makes keys" },
};

int option_next(int argc, char **argv, const char *shorts, const struct option *longs, int *at,
                struct tern_err *err)
{
    const struct tern_option_table t = { .program = "tern",
                                         .command = argc > 0 ? argv[0] : NULL,
                                         .shorts = shorts,
                                         .longs = longs,
                                         .habits = habits,
                                         .n_habits = sizeof habits / sizeof habits[0] };

    return tern_option_next(argc, argv, &t, at, err);
}

const char *option_habit_command(const char *word)
{
    const size_t n = strlen(word);

    for (size_t i = 0; n && i < sizeof commands / sizeof commands[0]; i++)
        for (const char *p = commands[i].words; (p = strstr(p, word)); p++)
            if (p > commands[i].words && p[-1] == ' ' && p[n] == ' ')
                return commands[i].advice;
    return NULL;
}
