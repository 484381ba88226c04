package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"dbbackup/internal/console"
	"dbbackup/internal/fault"
	"dbbackup/internal/report"
)

// application is one call of the program.
type application struct {
	process
	cli    *cli.App
	config config
	log    *console.Reporter

	capNoticed bool // a level was capped, which is said once
}

func newApplication(p process) *application {
	a := &application{process: p}
	a.cli = &cli.App{
		Name: "dbbackup", Usage: "back up, verify and restore PostgreSQL clusters",
		Version: version, HideVersion: true, HideHelpCommand: true, HideHelp: true,
		Writer: p.stdout, ErrWriter: p.stderr, Reader: p.stdin, DisableSliceFlagSeparator: true,
		Description: "A set is listed only when it is complete, and a restore checks it before it writes. " +
			"Connections follow libpq: PGHOST, PGPORT, PGUSER, PGPASSFILE, PGSERVICE and the rest hold.\n" +
			"Exit codes: 0 ok, 1 failed, 2 usage, 3 finished with declared omissions, 10 no such store or set, " +
			"11 locked by another run, 12 wrong key, 13 integrity, 14 precondition, 130 interrupted, 143 terminated.",
		Flags:          []cli.Flag{helpFlag(), versionFlag()},
		Commands:       a.commands(),
		ExitErrHandler: func(*cli.Context, error) {}, // run returns the error; the library must not exit
		OnUsageError:   usageError,
		Action:         a.noCommand,
	}
	return a
}

func helpFlag() cli.Flag {
	return &cli.BoolFlag{Name: "help", Usage: "show this page", DisableDefaultText: true}
}

// versionFlag is what people try first; the command version does the same.
func versionFlag() cli.Flag {
	return &cli.BoolFlag{Name: "version", Usage: "print the version", DisableDefaultText: true}
}

// usageError words an error of the library's parser.
func usageError(c *cli.Context, err error, _ bool) error {
	text := err.Error()
	if name, unknown := strings.CutPrefix(text, "flag provided but not defined: -"); unknown {
		text = "unknown flag " + dashes(name)
	} else if errors.Is(err, flag.ErrHelp) { // the parser's own idea of -h
		text = "unknown flag -h"
	}
	return fault.New(fault.Usage, helpHint(c), "%s", text)
}

func dashes(name string) string {
	if len(name) == 1 {
		return "-" + name
	}
	return "--" + name
}

// helpHint is the command that explains the one that was called.
func helpHint(c *cli.Context) string {
	return strings.Join(strings.Fields("dbbackup "+commandPath(c)+" --help"), " ")
}

// commandPath is a command's name with its group's: "backup single".
func commandPath(c *cli.Context) string {
	return strings.TrimSpace(strings.TrimPrefix(c.Command.HelpName, "dbbackup"))
}

func (a *application) noCommand(c *cli.Context) error {
	if c.Bool("version") {
		return printVersionText(a.stdout)
	}
	if c.NArg() == 0 {
		return printAppHelp(a.stdout, a.cli)
	}
	return fault.New(fault.Usage, "dbbackup --help", "unknown command %q", c.Args().First())
}

func (a *application) run(ctx context.Context) error {
	if n := len(a.args); n > 1 && a.args[n-1] == completionFlag {
		return a.complete(ctx, a.args[1:n-1])
	}
	line := reorder(a.cli, a.args)
	if line.help {
		return printHelp(a.stdout, a.cli, line.path)
	}
	return a.cli.RunContext(ctx, line.args())
}

// command makes a leaf command. action gets the resolved settings.
func (a *application) command(name, usage, args, examples string, flags []cli.Flag, action func(ctx context.Context, s *settings) error) *cli.Command {
	return &cli.Command{
		Name: name, Usage: usage, ArgsUsage: args, Description: examples, HideHelp: true, OnUsageError: usageError,
		UseShortOptionHandling: false,
		Flags:                  join(flags, commonFlags()),
		Action: func(c *cli.Context) error {
			s, err := a.resolve(c)
			if err != nil {
				return err
			}
			err = action(c.Context, s)
			a.log.Close()
			return err
		},
	}
}

// group makes a command that only holds others.
func (a *application) group(name, usage string, commands ...*cli.Command) *cli.Command {
	return &cli.Command{
		Name: name, Usage: usage, Subcommands: commands, HideHelp: true, HideHelpCommand: true, OnUsageError: usageError,
		Flags: []cli.Flag{helpFlag()},
		Action: func(c *cli.Context) error {
			hint := "dbbackup " + name + " --help"
			if c.NArg() > 0 {
				return fault.New(fault.Usage, hint, "unknown command %q", name+" "+c.Args().First())
			}
			var names []string
			for _, sub := range commands {
				names = append(names, sub.Name)
			}
			return fault.New(fault.Usage, hint, "dbbackup %s what? It knows: %s", name, strings.Join(names, ", "))
		},
	}
}

// printError prints what went wrong, and each hint on a line of its own; as
// one JSON object where the log is JSON.
func (a *application) printError(err error) {
	if err == nil || errors.Is(err, errOmissions) {
		return
	}
	text, hints := err.Error(), fault.Hints(err)
	var bySignal *signalError
	if errors.As(err, &bySignal) { // what broke off because of it says nothing new
		text, hints = bySignal.Error(), nil
		var kept *fault.Kept
		if errors.As(err, &kept) {
			text, hints = text+"\n"+kept.What, []string{kept.How}
		}
	}
	if a.logsJSON() {
		console.Error(a.stderr, text, report.F("exit_code", exitCode(err)), report.F("hints", append([]string{}, hints...)))
		return
	}
	for i, line := range strings.Split(text, "\n") {
		if i == 0 || !strings.HasPrefix(line, " ") { // an indented line belongs to the one before
			line = "dbbackup: " + line
		}
		fmt.Fprintln(a.stderr, line) //nolint:errcheck // there is nowhere else to say it
	}
	for _, hint := range hints {
		fmt.Fprintf(a.stderr, "hint: %s\n", hint) //nolint:errcheck // as above
	}
}

// logsJSON reports whether the log is JSON. Errors in the command line come
// before there is a log, so that the arguments are looked at as they are.
func (a *application) logsJSON() bool {
	if a.log != nil {
		return a.log.JSON()
	}
	format := a.lookup("DBBACKUP_LOG_FORMAT")
	for i, arg := range a.args {
		name, value, hasValue := strings.Cut(strings.TrimLeft(arg, "-"), "=")
		switch {
		case arg == "--":
			return format == "json"
		case !isFlag(arg) || name != "log-format":
		case hasValue:
			format = value
		case i+1 < len(a.args):
			format = a.args[i+1]
		}
	}
	return format == "json"
}

// wantArgs checks the number of names. An empty one is what a script's unset
// variable leaves: it must not mean something else.
func wantArgs(c *cli.Context, least, most int) error {
	switch n := c.NArg(); {
	case n < least:
		return fault.New(fault.Usage, helpHint(c), "a name is missing")
	case n > most:
		return fault.New(fault.Usage, helpHint(c), "too many names: %q", c.Args().Slice()[most:])
	case slices.Contains(c.Args().Slice(), ""):
		return fault.New(fault.Usage, helpHint(c), "a name is empty")
	}
	return nil
}
