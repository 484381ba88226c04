package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"dbbackup/internal/child"
	"dbbackup/internal/fault"
	"dbbackup/internal/report"
)

// hookLimit bounds a hook: one that hangs must not last into the next night.
func (a *application) hookLimit(s *settings) (time.Duration, error) {
	return parseTime("hook-timeout", s.text("hook-timeout", a.config.Hooks.Timeout))
}

// beforeHook runs the program that prepares for a run. When it fails, the run
// does not begin.
func (a *application) beforeHook(ctx context.Context, s *settings) error {
	argv := a.hookArgv(s, "before-hook", a.config.Hooks.Before)
	return a.runHook(ctx, s, hook{"before", argv, a.hookEnv(s, nil), nil})
}

// afterHook runs the program that wants to know the result. It runs whatever
// happened, also when the run was interrupted.
func (a *application) afterHook(ctx context.Context, s *settings, sum summary) error {
	argv := a.hookArgv(s, "after-hook", a.config.Hooks.After)
	text, err := json.Marshal(sum)
	if err != nil {
		return fmt.Errorf("result for the after hook: %w", err)
	}
	return a.runHook(context.WithoutCancel(ctx), s, hook{"after", argv, a.hookEnv(s, &sum), append(text, '\n')})
}

// hookArgv: a flag names a program only; the config file has arguments too.
func (a *application) hookArgv(s *settings, flag string, inFile []string) []string {
	if s.IsSet(flag) {
		return []string{s.String(flag)}
	}
	return inFile
}

func (a *application) hookEnv(s *settings, sum *summary) []string {
	vars := []string{"DBBACKUP_COMMAND=" + commandPath(s.Context), "DBBACKUP_STORE=" + s.storeNames()}
	if sum != nil {
		vars = append(vars, "DBBACKUP_SET="+sum.Set, "DBBACKUP_RESULT="+sum.Result,
			"DBBACKUP_EXIT_CODE="+strconv.Itoa(sum.ExitCode), "DBBACKUP_STORED_BYTES="+strconv.FormatInt(sum.Stored, 10),
			"DBBACKUP_SECONDS="+strconv.FormatFloat(sum.Seconds, 'f', 1, 64), "DBBACKUP_ERROR="+forEnvironment(sum.Error))
	}
	env := make([]string, 0, len(a.env)+len(vars))
	for _, kv := range a.env {
		switch key, _, _ := strings.Cut(kv, "="); key {
		case "PGPASSWORD", "PGSSLPASSWORD", passphraseVariable:
		default:
			env = append(env, kv)
		}
	}
	return append(env, vars...)
}

// errorInEnvironment bounds DBBACKUP_ERROR: the kernel starts no program with a
// variable above 128 kB. Standard input has the whole text.
const errorInEnvironment = 4 << 10

func forEnvironment(text string) string {
	text = strings.ReplaceAll(text, "\x00", "")
	if len(text) > errorInEnvironment {
		text = strings.ToValidUTF8(text[:errorInEnvironment], "") + "..."
	}
	return text
}

// hook is a program to run before or after.
type hook struct {
	which     string
	argv, env []string
	stdin     []byte
}

// runHook starts a program with its arguments, no shell between. What it
// prints becomes log lines: standard output notices, standard error warnings.
func (a *application) runHook(ctx context.Context, s *settings, h hook) error {
	if len(h.argv) == 0 {
		return nil
	}
	limit, err := a.hookLimit(s)
	if err != nil {
		return err
	}
	a.log.Info(h.which+" hook begins", report.F("program", h.argv[0]))
	if limit > 0 {
		var cancel func()
		ctx, cancel = context.WithTimeoutCause(ctx, limit, fmt.Errorf("it did not end within %s (--hook-timeout)", limit))
		defer cancel()
	}
	said := func(line string) { a.log.Info("hook says", report.F("hook", h.which), report.F("line", line)) }
	stdout := &lineWriter{line: said}
	defer stdout.flush()
	command := child.Command{Name: h.which + " hook " + h.argv[0], Path: h.argv[0], Args: h.argv[1:], Env: h.env, Stdout: stdout,
		OnStderrLine: func(line string) {
			a.log.Warn("hook says", report.F("hook", h.which), report.F("line", line))
		}}
	if h.stdin != nil {
		command.Stdin = bytes.NewReader(h.stdin)
	}
	if _, err := child.Run(ctx, command); err != nil {
		return fault.New(fault.Failed, "hooks are programs by their absolute path; they get no shell", "%w", err)
	}
	return nil
}

// lineWriter calls line for every line that is written to it, without its
// newline. A line is cut where it becomes longer than longestLine.
type lineWriter struct {
	line func(string)
	held []byte
}

const longestLine = 64 << 10

func (w *lineWriter) Write(p []byte) (int, error) {
	w.held = append(w.held, p...)
	for {
		end := bytes.IndexByte(w.held, '\n')
		switch {
		case end >= 0:
			w.line(string(w.held[:end]))
			w.held = w.held[end+1:]
		case len(w.held) > longestLine:
			w.flush()
		default:
			return len(p), nil
		}
	}
}

// flush passes on a last line without a newline.
func (w *lineWriter) flush() {
	if len(w.held) > 0 {
		w.line(string(w.held))
		w.held = nil
	}
}
