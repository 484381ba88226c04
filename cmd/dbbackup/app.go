package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/urfave/cli/v2"

	"dbbackup/internal/fault"
)

// application is one call of the program.
type application struct {
	process
	cli    *cli.App
	config config
	log    *logReporter
}

func newApplication(p process) *application {
	a := &application{process: p}
	a.cli = &cli.App{
		Name: "dbbackup", Usage: "back up, verify and restore PostgreSQL clusters",
		Version: version, HideVersion: true, HideHelpCommand: true, HideHelp: true,
		Writer: p.stdout, ErrWriter: p.stderr, Reader: p.stdin,
		EnableBashCompletion: true, DisableSliceFlagSeparator: true,
		UseShortOptionHandling: false,
		Description: "A set is listed only when it is complete, and `restore` checks it before it writes.\n" +
			"Connections follow libpq: PGHOST, PGPORT, PGUSER, PGPASSFILE, PGSERVICE and the rest hold.\n" +
			"Exit codes: 0 ok, 1 failed, 2 usage, 3 finished with declared omissions, 10 no such store or set,\n" +
			"11 locked by another run, 12 wrong key, 13 integrity, 14 precondition, 130 interrupted, 143 terminated.",
		Flags:          []cli.Flag{helpFlag()},
		Commands:       a.commands(),
		ExitErrHandler: func(*cli.Context, error) {}, // run returns the error; the library must not exit
		OnUsageError:   usageError,
		Action:         a.noCommand,
	}
	return a
}

func helpFlag() cli.Flag {
	return &cli.BoolFlag{Name: "help", Usage: "show help", DisableDefaultText: true}
}

// usageError words an error of the library's parser.
func usageError(c *cli.Context, err error, _ bool) error {
	return fault.New(fault.Usage, "dbbackup "+commandPath(c)+"--help", "%w", err)
}

func commandPath(c *cli.Context) string {
	path := strings.TrimPrefix(c.Command.FullName(), "dbbackup")
	if path = strings.TrimSpace(path); path != "" {
		path += " "
	}
	return path
}

func (a *application) noCommand(c *cli.Context) error {
	if c.Bool("help") || c.NArg() == 0 {
		return cli.ShowAppHelp(c)
	}
	return fault.New(fault.Usage, "dbbackup --help", "unknown command %q", c.Args().First())
}

func (a *application) run(ctx context.Context) error {
	return a.cli.RunContext(ctx, reorder(a.cli, a.args))
}

// command makes a leaf command. action gets the resolved settings.
func (a *application) command(name, usage, args string, flags []cli.Flag, action func(ctx context.Context, s *settings) error) *cli.Command {
	return &cli.Command{
		Name: name, Usage: usage, ArgsUsage: args, HideHelp: true, OnUsageError: usageError,
		UseShortOptionHandling: false,
		Flags:                  join(flags, commonFlags(), []cli.Flag{helpFlag()}),
		Action: func(c *cli.Context) error {
			if c.Bool("help") {
				return cli.ShowSubcommandHelp(c)
			}
			s, err := a.resolve(c)
			if err != nil {
				return err
			}
			err = action(c.Context, s)
			a.log.close()
			return err
		},
	}
}

// group makes a command that only holds others.
func group(name, usage string, commands ...*cli.Command) *cli.Command {
	return &cli.Command{
		Name: name, Usage: usage, Subcommands: commands, HideHelp: true, HideHelpCommand: true, OnUsageError: usageError,
		Flags: []cli.Flag{helpFlag()},
		Action: func(c *cli.Context) error {
			if c.Bool("help") {
				return cli.ShowSubcommandHelp(c)
			}
			if c.NArg() > 0 {
				return fault.New(fault.Usage, "dbbackup "+name+" --help", "unknown command %q", name+" "+c.Args().First())
			}
			return fault.New(fault.Usage, "dbbackup "+name+" --help", "dbbackup %s needs to know what", name)
		},
	}
}

func (a *application) commands() []*cli.Command {
	return []*cli.Command{
		group("backup", "capture a cluster or one database into a new backup set",
			a.command("cluster", "every database, roles, tablespaces and the server's settings", " ",
				join(connectionFlags(), captureFlags(), runFlags(), []cli.Flag{listFlag("exclude-db", "leave out databases that match `PATTERN`; may be repeated")}), a.backupCluster),
			a.command("single", "one database, with the roles that it needs", "NAME",
				join(connectionFlags(), captureFlags(), runFlags(), selectionFlags(), exclusionFlags()), a.backupSingle)),
		group("restore", "bring databases of a backup set back",
			a.command("cluster", "roles, tablespaces and every database of a set", " ",
				join(connectionFlags(), restoreFlags()), a.restoreCluster),
			a.command("single", "one database, or some of its tables", "NAME",
				join(connectionFlags(), restoreFlags(), selectionFlags(), singleRestoreFlags()), a.restoreSingle)),
		a.command("verify", "read every byte of a set and say what is wrong with it", "[SET]",
			[]cli.Flag{boolFlag("quick", "only look for every file, in its size"), stringFlag("pg-bin", "`DIR` with pg_restore", ""), jsonFlag()}, a.verify),
		a.command("list", "list the sets of the store, oldest first", " ", []cli.Flag{jsonFlag()}, a.list),
		a.command("show", "show what a set holds", "SET", []cli.Flag{jsonFlag()}, a.show),
		a.command("gc", "remove what killed runs left in the store", " ", nil, a.gc),
		a.command("probe", "say what a backup would do with each database, and why", " ",
			join(connectionFlags(), captureFlags(), []cli.Flag{jsonFlag()}), a.probe),
		a.command("doctor", "look for what is wrong with this host, the tools, the store and the server", " ",
			join(connectionFlags(), []cli.Flag{jsonFlag(), stringFlag("postgres-user", "the `USER` that runs the server", "postgres")}), a.doctor),
		a.command("config", "print the effective configuration", " ",
			join(connectionFlags(), captureFlags(), runFlags(), []cli.Flag{listFlag("exclude-db", "leave out databases that match `PATTERN`")}), a.printConfig),
		a.command("completion", "print the completion script of a shell: bash or zsh", "SHELL", nil, a.completion),
		a.command("version", "print the version", " ", []cli.Flag{jsonFlag()}, a.printVersion),
	}
}

// printError prints what went wrong, and each hint on a line of its own.
func (a *application) printError(err error) {
	var text string
	var bySignal *signalError
	switch {
	case err == nil, errors.Is(err, errOmissions):
		return
	case errors.As(err, &bySignal):
		text = bySignal.Error()
	default:
		text = err.Error()
	}
	fmt.Fprintf(a.stderr, "dbbackup: %s\n", text) //nolint:errcheck // there is nowhere else to say it
	for _, hint := range fault.Hints(err) {
		fmt.Fprintf(a.stderr, "hint: %s\n", hint) //nolint:errcheck // as above
	}
}

// isTerminal reports whether a stream is one.
func isTerminal(stream any) bool {
	file, ok := stream.(*os.File)
	if !ok {
		return false
	}
	info, err := file.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0 && info.Mode()&os.ModeDevice != 0 && isTTY(file.Fd())
}

// wantArgs checks the number of names.
func wantArgs(c *cli.Context, least, most int) error {
	switch n := c.NArg(); {
	case n < least:
		return fault.New(fault.Usage, "dbbackup "+commandPath(c)+"--help", "a name is missing")
	case n > most:
		return fault.New(fault.Usage, "dbbackup "+commandPath(c)+"--help", "too many names: %q", c.Args().Slice()[most:])
	}
	return nil
}
