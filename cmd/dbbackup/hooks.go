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

// hookLimit bounds a hook: one that hangs must not keep the store locked out
// of the next night.
const hookLimit = 10 * time.Minute

// beforeHook runs the program that prepares for a run. When it fails, the run
// does not begin.
func (a *application) beforeHook(ctx context.Context, s *settings) error {
	argv := a.hookArgv(s, "before-hook", a.config.Hooks.Before)
	return a.runHook(ctx, "before", argv, a.hookEnv(s, nil), nil)
}

// afterHook runs the program that wants to know the result. It runs whatever
// happened, also when the run was interrupted.
func (a *application) afterHook(ctx context.Context, s *settings, sum summary) error {
	argv := a.hookArgv(s, "after-hook", a.config.Hooks.After)
	text, err := json.Marshal(sum)
	if err != nil {
		return fmt.Errorf("result for the after hook: %w", err)
	}
	return a.runHook(context.WithoutCancel(ctx), "after", argv, a.hookEnv(s, &sum), append(text, '\n'))
}

// hookArgv: a flag names a program only; the config file has arguments too.
func (a *application) hookArgv(s *settings, flag string, inFile []string) []string {
	if s.IsSet(flag) {
		return []string{s.String(flag)}
	}
	return inFile
}

func (a *application) hookEnv(s *settings, sum *summary) []string {
	vars := []string{"DBBACKUP_COMMAND=" + s.Command.FullName(), "DBBACKUP_STORE=" + s.storePath()}
	if sum != nil {
		vars = append(vars, "DBBACKUP_SET="+sum.Set, "DBBACKUP_RESULT="+sum.Result,
			"DBBACKUP_EXIT_CODE="+strconv.Itoa(sum.ExitCode), "DBBACKUP_STORED_BYTES="+strconv.FormatInt(sum.Stored, 10),
			"DBBACKUP_SECONDS="+strconv.FormatFloat(sum.Seconds, 'f', 1, 64), "DBBACKUP_ERROR="+strings.ReplaceAll(sum.Error, "\x00", ""))
	}
	env := make([]string, 0, len(a.env)+len(vars))
	for _, kv := range a.env {
		if key, _, _ := strings.Cut(kv, "="); key != "PGPASSWORD" {
			env = append(env, kv)
		}
	}
	return append(env, vars...)
}

// runHook starts a program with its arguments, no shell between. What it
// prints goes to standard error.
func (a *application) runHook(ctx context.Context, which string, argv, env []string, stdin []byte) error {
	if len(argv) == 0 {
		return nil
	}
	a.log.Info(which+" hook begins", report.F("program", argv[0]))
	limited, cancel := context.WithTimeout(ctx, hookLimit)
	defer cancel()
	command := child.Command{Name: which + " hook " + argv[0], Path: argv[0], Args: argv[1:], Env: env, Stdout: a.stderr,
		OnStderrLine: func(line string) { fmt.Fprintln(a.stderr, line) }} //nolint:errcheck // there is nowhere else to say it
	if stdin != nil {
		command.Stdin = bytes.NewReader(stdin)
	}
	if _, err := child.Run(limited, command); err != nil {
		return fault.New(fault.Failed, "hooks are programs by their absolute path; they get no shell", "%w", err)
	}
	return nil
}
