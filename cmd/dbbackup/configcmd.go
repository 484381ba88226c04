package main

import (
	"context"
	"fmt"

	"go.yaml.in/yaml/v3"

	"dbbackup/backup"
	"dbbackup/internal/fault"
)

// printConfig prints what would hold, in the config file's own form, so that
// it can be saved as one. Passwords are not part of it; one in a connection
// string is masked.
func (a *application) printConfig(ctx context.Context, s *settings) error {
	if err := wantArgs(s.Context, 0, 0); err != nil {
		return err
	}
	o, err := a.backupOptions(ctx, s, func(*backup.Options) {})
	if err != nil {
		return err
	}
	params, err := s.params()
	if err != nil {
		return err
	}
	connection := map[string]string{"host": params["host"], "port": params["port"], "user": params["user"], "database": params["dbname"], "sslmode": params["sslmode"]}
	if params["password"] != "" {
		a.log.Warn("the password of the connection string is not printed; keep it in ~/.pgpass")
	}
	effective := []struct {
		key   string
		value any
	}{
		{"store", s.storePath()}, {"connection", connection}, {"pg_bin", s.search().BinDir},
		{"mode", string(o.Defaults.Mode)}, {"plain_over", s.text("plain-over", a.config.PlainOver)},
		{"compression", o.Defaults.Level}, {"timeout", o.Defaults.Limit.String()},
		{"stall_timeout", o.Defaults.Stall.String()}, {"lock_timeout", o.Defaults.LockTimeout.String()},
		{"skip_large_objects", o.Defaults.SkipLargeObjects}, {"exclude_tables", append([]string{}, o.Defaults.ExcludeTables...)},
		{"parallel_databases", o.ParallelDatabases}, {"jobs", o.Jobs}, {"attempts", o.Attempts},
		{"exclude_databases", append([]string{}, s.list("exclude-db", a.config.ExcludeDatabases)...)},
		{"metrics_file", s.text("metrics-file", a.config.MetricsFile)}, {"log_format", s.text("log-format", a.config.LogFormat)},
		{"hooks", map[string][]string{
			"before": append([]string{}, a.hookArgv(s, "before-hook", a.config.Hooks.Before)...),
			"after":  append([]string{}, a.hookArgv(s, "after-hook", a.config.Hooks.After)...),
		}},
		{"databases", a.config.Databases},
	}
	for _, e := range effective {
		text, err := yaml.Marshal(map[string]any{e.key: e.value})
		if err != nil {
			return fmt.Errorf("print config: %w", err)
		}
		if _, err := a.stdout.Write(text); err != nil {
			return err
		}
	}
	return nil
}

// completion prints what a shell sources. It asks the program itself.
func (a *application) completion(_ context.Context, s *settings) error {
	if err := wantArgs(s.Context, 1, 1); err != nil {
		return err
	}
	scripts := map[string]string{"bash": bashCompletion, "zsh": zshCompletion}
	script, ok := scripts[s.Args().First()]
	if !ok {
		return fault.New(fault.Usage, "dbbackup completion bash", "no completion for %q: bash and zsh are known", s.Args().First())
	}
	_, err := a.stdout.Write([]byte(script))
	return err
}

const bashCompletion = `# bash completion for dbbackup: source this, or install it as
# /usr/share/bash-completion/completions/dbbackup
_dbbackup() {
  local cur=${COMP_WORDS[COMP_CWORD]}
  local words=("${COMP_WORDS[@]:1:COMP_CWORD-1}")
  if [[ $cur == -* ]]; then words+=("$cur"); fi
  mapfile -t COMPREPLY < <(compgen -W "$(dbbackup "${words[@]}" --generate-bash-completion 2>/dev/null)" -- "$cur")
}
complete -o default -F _dbbackup dbbackup
`

const zshCompletion = `#compdef dbbackup
# zsh completion for dbbackup: install it as _dbbackup in a folder of $fpath
_dbbackup() {
  local -a found
  local words_before=("${words[@]:1:$((CURRENT-2))}")
  if [[ ${words[CURRENT]} == -* ]]; then words_before+=("${words[CURRENT]}"); fi
  found=("${(@f)$(dbbackup "${words_before[@]}" --generate-bash-completion 2>/dev/null)}")
  compadd -a found
  _files
}
compdef _dbbackup dbbackup
`
