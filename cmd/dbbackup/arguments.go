package main

import (
	"strings"

	"github.com/urfave/cli/v2"
)

// reorder moves flags in front of names, because the library stops parsing
// flags at the first name: `restore single app --dry-run` would otherwise be a
// real restore. What follows "--" are names. The order among flags, and among
// names, stays.
func reorder(app *cli.App, args []string) []string {
	if len(args) == 0 {
		return args
	}
	takesValue := valueFlags(app)
	commands := app.Commands
	path, flags, names := args[:1:1], []string{}, []string{}
	for i := 1; i < len(args); i++ {
		arg := args[i]
		if arg == "--" {
			names = append(names, args[i+1:]...)
			break
		}
		if !isFlag(arg) {
			if sub := commandNamed(commands, arg); sub != nil && len(names) == 0 {
				path, commands = append(path, arg), sub.Subcommands
				continue
			}
			names = append(names, arg)
			continue
		}
		flags = append(flags, arg)
		if takesValue[strings.TrimLeft(arg, "-")] && i+1 < len(args) {
			i++
			flags = append(flags, args[i])
		}
	}
	ordered := append(path, flags...)
	if len(names) > 0 {
		ordered = append(append(ordered, "--"), names...)
	}
	return ordered
}

// isFlag: a single "-" is a name.
func isFlag(arg string) bool { return len(arg) > 1 && arg[0] == '-' }

func commandNamed(commands []*cli.Command, name string) *cli.Command {
	for _, c := range commands {
		if c.HasName(name) {
			return c
		}
	}
	return nil
}

// valueFlags are the names of all flags that take a value. A flag's name means
// the same in every command.
func valueFlags(app *cli.App) map[string]bool {
	values := map[string]bool{}
	collect := func(flags []cli.Flag) {
		for _, f := range flags {
			if _, isBool := f.(*cli.BoolFlag); isBool {
				continue
			}
			for _, name := range f.Names() {
				values[name] = true
			}
		}
	}
	var walk func(commands []*cli.Command)
	walk = func(commands []*cli.Command) {
		for _, c := range commands {
			collect(c.Flags)
			walk(c.Subcommands)
		}
	}
	collect(app.Flags)
	walk(app.Commands)
	return values
}
