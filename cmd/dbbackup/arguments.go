package main

import (
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// line is a command line, sorted.
type line struct {
	path  []string // the program and its commands
	flags []string // with their values
	names []string
	help  bool // --help is among the flags
}

// args is the line as the library can parse it.
func (l line) args() []string {
	ordered := append(slices.Clone(l.path), l.flags...)
	if len(l.names) > 0 {
		ordered = append(append(ordered, "--"), l.names...)
	}
	return ordered
}

// reorder moves flags in front of names, because the library stops parsing
// flags at the first name: `restore single app --dry-run` would otherwise be a
// real restore. What follows "--" are names. The order among flags, and among
// names, stays. A short flag's value may stick to it, as PostgreSQL's own
// programs take it: -p5433.
func reorder(app *cli.App, args []string) line {
	known := flagsOf(app)
	commands := app.Commands
	l := line{path: args[:min(1, len(args))]}
	for i := 1; i < len(args); i++ {
		arg := args[i]
		if arg == "--" {
			l.names = append(l.names, args[i+1:]...)
			break
		}
		if !isFlag(arg) {
			if sub := commandNamed(commands, arg); sub != nil && len(l.names) == 0 {
				l.path, commands = append(l.path[:len(l.path):len(l.path)], arg), sub.Subcommands
				continue
			}
			l.names = append(l.names, arg)
			continue
		}
		split := known.split(arg)
		l.flags, l.help = append(l.flags, split...), l.help || arg == "--help"
		if len(split) == 1 && known.takesValue(arg) && i+1 < len(args) {
			i++
			l.flags = append(l.flags, args[i])
		}
	}
	return l
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

// knownFlags maps the names of all flags, without hyphens, to whether they
// take a value. A flag's name means the same in every command.
type knownFlags map[string]bool

func flagsOf(app *cli.App) knownFlags {
	known := knownFlags{}
	collect := func(flags []cli.Flag) {
		for _, f := range flags {
			_, isBool := f.(*cli.BoolFlag)
			for _, name := range f.Names() {
				known[name] = !isBool
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
	return known
}

// takesValue reports whether the next argument is this flag's value.
func (k knownFlags) takesValue(arg string) bool { return k[strings.TrimLeft(arg, "-")] }

// split parts "-p5433" into "-p" and "5433", where no flag has the long name.
func (k knownFlags) split(arg string) []string {
	name, _, _ := strings.Cut(arg[1:], "=")
	if _, isLong := k[name]; isLong || len(name) < 2 || arg[1] == '-' || !k[arg[1:2]] {
		return []string{arg}
	}
	return []string{arg[:2], arg[2:]}
}
