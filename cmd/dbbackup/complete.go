package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"dbbackup/internal/backupset"
	"dbbackup/internal/fault"
	"dbbackup/internal/store/dir"
)

// completionFlag is what the shells' scripts add to the words on the line. The
// last of these words is the one that is being typed, and may be empty.
const completionFlag = "--generate-completion"

// complete prints what the last word could become, one candidate per line:
// commands, flags, a flag's values or sets. Nothing that it meets is an error.
func (a *application) complete(ctx context.Context, words []string) error {
	// bash parts --mode=plain into three words.
	endsWithEquals := len(words) > 0 && words[len(words)-1] == "="
	words = slices.DeleteFunc(slices.Clone(words), func(w string) bool { return w == "=" })
	typed := ""
	if n := len(words); n > 0 && !endsWithEquals {
		typed, words = words[n-1], words[:n-1]
	}
	for _, candidate := range a.candidates(ctx, words, typed) {
		if strings.HasPrefix(candidate, typed) {
			fmt.Fprintln(a.stdout, candidate) //nolint:errcheck // a shell that listens no more
		}
	}
	return nil
}

func (a *application) candidates(ctx context.Context, words []string, typed string) []string {
	known := flagsOf(a.cli)
	if n := len(words); n > 0 && isFlag(words[n-1]) && known.takesValue(words[n-1]) {
		return a.flagValues(ctx, words, strings.TrimLeft(words[n-1], "-"))
	}
	command, names := a.commandOn(words, known)
	if strings.HasPrefix(typed, "-") {
		return flagNames(command, a.cli)
	}
	switch {
	case command == nil:
		return commandNames(a.cli.Commands)
	case len(command.Subcommands) > 0:
		return commandNames(command.Subcommands)
	case names > 0:
		return nil
	case command.Name == "completion":
		return []string{"bash", "zsh"}
	case command.Name == "show" || command.Name == "verify":
		return a.setNames(ctx, words)
	}
	return nil
}

// commandOn finds the command on the line, and how many names follow it.
func (a *application) commandOn(words []string, known knownFlags) (command *cli.Command, names int) {
	commands := a.cli.Commands
	for i := 0; i < len(words); i++ {
		if isFlag(words[i]) {
			if known.takesValue(words[i]) {
				i++
			}
			continue
		}
		if c := commandNamed(commands, words[i]); c != nil {
			command, commands = c, c.Subcommands
		} else {
			names++
		}
	}
	return command, names
}

func commandNames(commands []*cli.Command) []string {
	var names []string
	for _, c := range commands {
		names = append(names, c.Name)
	}
	return names
}

func flagNames(command *cli.Command, app *cli.App) []string {
	flags := app.Flags
	if command != nil {
		flags = command.Flags
	}
	var names []string
	for _, f := range flags {
		names = append(names, "--"+f.Names()[0])
	}
	return names
}

// flagValues: where the values are not known the shell offers files.
func (a *application) flagValues(ctx context.Context, words []string, flag string) []string {
	switch flag {
	case "mode":
		return []string{string(backupset.Auto), string(backupset.Custom), string(backupset.Plain), string(backupset.Directory), string(backupset.Chunked)}
	case "log-format":
		return []string{"text", "json"}
	case "set":
		return a.setNames(ctx, words)
	}
	return nil
}

// setNames lists the sets of the store that the line, or the environment,
// names.
func (a *application) setNames(ctx context.Context, words []string) []string {
	path := "./backups"
	if named := a.lookup("DBBACKUP_STORE"); named != "" {
		path = named
	}
	for i, word := range words {
		if value, ok := strings.CutPrefix(word, "--store="); ok {
			path = value
		} else if word == "--store" && i+1 < len(words) {
			path = words[i+1]
		}
	}
	place, err := dir.Open(path, false)
	if err != nil {
		return nil
	}
	defer place.Close() //nolint:errcheck // only read
	folders, err := backupset.ListFolders(ctx, place)
	if err != nil {
		return nil
	}
	return append(folders.IDs, backupset.Latest)
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
  mapfile -t COMPREPLY < <("${COMP_WORDS[0]}" "${COMP_WORDS[@]:1:COMP_CWORD}" ` + completionFlag + ` 2>/dev/null)
}
complete -o default -F _dbbackup dbbackup
`

const zshCompletion = `#compdef dbbackup
# zsh completion for dbbackup: install it as _dbbackup in a folder of $fpath
_dbbackup() {
  local -a found
  found=("${(@f)$("${words[1]}" "${(@)words[2,CURRENT]}" ` + completionFlag + ` 2>/dev/null)}")
  if [[ -n ${found[1]} ]]; then compadd -a found; else _files; fi
}
compdef _dbbackup dbbackup
`
