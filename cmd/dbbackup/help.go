package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/urfave/cli/v2"

	"dbbackup/internal/console"
)

// Help is laid out here, and not by the library's templates, so that every
// page fits a terminal of 80 columns.
const (
	helpWidth  = 79
	helpIndent = 31 // of what a flag is for
)

// printHelp prints the page of the program, of a group or of a command.
func printHelp(w io.Writer, app *cli.App, path []string) error {
	commands, path := app.Commands, path[1:]
	var command *cli.Command
	for _, name := range path {
		command = commandNamed(commands, name)
		commands = command.Subcommands
	}
	switch {
	case command == nil:
		return printAppHelp(w, app)
	case len(command.Subcommands) > 0:
		return printGroupHelp(w, command)
	}
	return printCommandHelp(w, strings.Join(path, " "), command)
}

// printAppHelp prints what the program can do.
func printAppHelp(w io.Writer, app *cli.App) error {
	p := &printer{w: w}
	p.line("dbbackup: %s", app.Usage)
	p.line("")
	p.line("Usage: dbbackup COMMAND [flags and names, in any order]")
	p.line("")
	p.line("Commands:")
	for _, c := range app.Commands {
		for _, leaf := range leaves(c) {
			p.entry(leaf.path, leaf.command.Usage)
		}
	}
	p.line("")
	p.line("`dbbackup COMMAND --help` shows a command's flags and examples.")
	for _, paragraph := range strings.Split(app.Description, "\n") {
		p.line("")
		p.wrapped("", paragraph)
	}
	return p.err
}

// leaf is a command that does something, with how it is called.
type leaf struct {
	path    string
	command *cli.Command
}

func leaves(c *cli.Command) []leaf {
	if len(c.Subcommands) == 0 {
		return []leaf{{c.Name, c}}
	}
	var all []leaf
	for _, sub := range c.Subcommands {
		for _, l := range leaves(sub) {
			all = append(all, leaf{c.Name + " " + l.path, l.command})
		}
	}
	return all
}

// printGroupHelp prints the commands of a group.
func printGroupHelp(w io.Writer, c *cli.Command) error {
	p := &printer{w: w}
	p.line("Usage: dbbackup %s COMMAND [flags and names, in any order]", c.Name)
	p.line("")
	p.wrapped("", upperFirst(c.Usage)+".")
	p.line("")
	p.line("Commands:")
	for _, l := range leaves(c) {
		p.entry(l.path, l.command.Usage)
	}
	p.line("")
	p.line("`dbbackup %s COMMAND --help` shows a command's flags and examples.", c.Name)
	return p.err
}

// printCommandHelp prints what a command does, with examples, and its flags by
// what they are about.
func printCommandHelp(w io.Writer, path string, c *cli.Command) error {
	p := &printer{w: w}
	p.line("Usage: dbbackup %s", strings.TrimSpace(path+" [flags] "+strings.TrimSpace(c.ArgsUsage)))
	p.line("")
	p.wrapped("", upperFirst(c.Usage)+".")
	p.line("")
	p.line("Examples:")
	for _, example := range strings.Split(c.Description, "\n") {
		p.line("  %s", example)
	}
	for _, category := range categories(c.Flags) {
		p.line("")
		p.line("%s:", category)
		for _, f := range c.Flags {
			if categoryOf(f) == category {
				p.flag(f)
			}
		}
	}
	p.line("")
	p.wrapped("", "What is no decision about a single call can also be set as DBBACKUP_NAME_OF_THE_FLAG in the environment, or in the config file. The flag wins, then the environment.")
	return p.err
}

// categories lists the flags' categories in the order in which they come.
func categories(flags []cli.Flag) []string {
	var all []string
	seen := map[string]bool{}
	for _, f := range flags {
		if category := categoryOf(f); !seen[category] {
			seen[category] = true
			all = append(all, category)
		}
	}
	return all
}

func categoryOf(f cli.Flag) string {
	if c, ok := f.(cli.CategorizableFlag); ok {
		return c.GetCategory()
	}
	return ""
}

// under puts flags into a category of the help page.
func under(category string, flags []cli.Flag) []cli.Flag {
	for _, f := range flags {
		switch f := f.(type) {
		case *cli.StringFlag:
			f.Category = category
		case *cli.IntFlag:
			f.Category = category
		case *cli.BoolFlag:
			f.Category = category
		case *cli.StringSliceFlag:
			f.Category = category
		}
	}
	return flags
}

func (p *printer) flag(f cli.Flag) {
	doc, ok := f.(cli.DocGenerationFlag)
	if !ok {
		return
	}
	placeholder, usage := "", doc.GetUsage()
	if before, rest, ok := strings.Cut(usage, "`"); ok {
		name, after, _ := strings.Cut(rest, "`")
		placeholder, usage = " "+name, before+name+after
	}
	long, short := "--"+f.Names()[0], "    "
	for _, alias := range f.Names()[1:] {
		short = "-" + alias + ", "
	}
	if value := doc.GetDefaultText(); doc.TakesValue() && value != "" && value != "0" {
		usage += " (default: " + strings.Trim(value, `"`) + ")"
	}
	p.entry(short+long+placeholder, usage)
}

// entry prints a term and what it means, beside it or below.
func (p *printer) entry(term, meaning string) {
	lines := console.Wrap(meaning, helpWidth-helpIndent)
	if len(term) > helpIndent-4 {
		p.line("  %s", term)
	} else {
		p.line("  %-*s%s", helpIndent-2, term, lines[0])
		lines = lines[1:]
	}
	for _, line := range lines {
		p.line("%*s%s", helpIndent, "", line)
	}
}

func upperFirst(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

// exampleLines are a command's examples, one per line.
func exampleLines(examples ...string) string {
	for i, e := range examples {
		examples[i] = fmt.Sprintf("dbbackup %s", e)
	}
	return strings.Join(examples, "\n")
}
