//! What the help of a command shows below its options.

/// What to type first.
pub(super) const FIRST_STEPS: &str = "\
First steps:
  linc train quickstart                   Train a small hybrid, in a minute or two
  linc generate outputs/quickstart/checkpoint/step-300 --prompt Hi
  linc models                             What there is to compile and train
  linc compile llama3_1b --ratio 0.75     Layers, memory and kernels of a large one
  linc COMMAND --help                     What a command takes";

pub(super) const TRAIN_EXAMPLES: &str = "\
Examples:
  linc train configs/quickstart.toml
  linc train configs/quickstart.toml --model.linear_attn_ratio 1.0
  linc train configs/quickstart.toml --training.dataset_path 'books/*.txt'
  linc train configs/quickstart.toml --profile
  linc train --list-settings

A run that was stopped goes on with the same command. A run with other settings, or one more like a finished one, gets a
folder of its own; --job.dump_folder names one.";

pub(super) const PROFILE_EXAMPLES: &str = "\
Examples:
  linc profile quickstart
  linc profile configs/quickstart.toml --steps 10 --training.seq_len 512
  linc profile quickstart --model.linear_attn_ratio 1.0 --format json

Nothing is written: no checkpoint, no metrics, no folder. linc train CONFIG --profile profiles a whole run, with traces.";

pub(super) const SWEEP_EXAMPLES: &str = "\
Examples:
  linc sweep sweep_ratio                 How the loss depends on the linear share
  linc sweep sweep_ratio --dry-run       Its runs, and their memory
  linc sweep sweep_lr --sweep.runs_at_once 2     Two at once, sharing the threads
  linc sweep sweep_ratio --training.steps 1000 --sweep.dump_folder outputs/longer

A sweep that was stopped goes on with the same command; a run that is finished is not done again.";

pub(super) const CONFIG_EXAMPLES: &str = "\
Examples:
  linc config configs/quickstart.toml
  linc config llama3_1b --training.steps 5 --format json
  linc config --schema > configs/linc.schema.json

What is printed is a config itself. An editor with a TOML language server (taplo) completes and checks a config whose first line is
  #:schema ./linc.schema.json
which linc init writes.";

pub(super) const SERVE_EXAMPLES: &str = "\
Examples:
  linc serve outputs/quickstart/checkpoint/step-300
  curl -s localhost:8000/v1/completions --json '{\"prompt\": \"One day\", \"max_tokens\": 32}'
  linc serve outputs/quickstart/checkpoint/step-300 --self-test

Ctrl-C or SIGTERM ends it: no other request is taken, and what runs is finished.";

pub(super) const TOKENIZE_EXAMPLES: &str = "\
Examples:
  linc tokenize 'books/*.txt' --out outputs/books
  linc tokenize c4/ --tokenizer tokenizer.json --out outputs/c4
  linc train quickstart --training.dataset_path outputs/books";

pub(super) const REPORT_EXAMPLES: &str = "\
Examples:
  linc report outputs/sweep_ratio                    outputs/sweep_ratio/report.html
  linc report outputs --out all.html                 All runs below a folder

The page needs no network: charts with their data, tables, what they show in words, and the config of each run.";

pub(super) const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  linc completions bash > ~/.local/share/bash-completion/completions/linc
  linc completions zsh > ~/.zfunc/_linc     (a folder of fpath)
  linc completions fish > ~/.config/fish/completions/linc.fish";

pub(super) const LAUNCH_EXAMPLES: &str = "\
Examples:
  linc launch -n 2 bench exchange
  linc launch -n 4 bench exchange --exchange all-reduce --size 1MiB,64MiB

It finds mpiexec, of an active Python environment (pip install mpich) or of the system, and becomes it, with the library that
fits. Lines of ranks other than 0 begin with their number. On many machines, mpirun or srun start linc themselves.";

pub(super) const EXCHANGE_EXAMPLES: &str = "\
Examples:
  linc launch -n 2 bench exchange
  mpirun -n 8 --hostfile hosts linc bench exchange --exchange all-reduce";
