package throwaway

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"dbbackup/internal/child"
)

const (
	// startTime is how long a server may take until it accepts connections.
	startTime = time.Minute
	// stopGrace is more than the five seconds after which a postmaster kills
	// backends that do not end (postmaster.c, SIGKILL_CHILDREN_AFTER_SECS).
	stopGrace = 15 * time.Second
)

// errClosed ends the server for Close.
var errClosed = errors.New("the throwaway server is closed")

// initialise runs initdb and writes the configuration.
func (s *Server) initialise(ctx context.Context, o Options) error {
	args := []string{
		"--pgdata=" + s.dataDir(), "--username=" + s.superuser, "--auth-local=trust", "--auth-host=reject",
		"--encoding=UTF8", "--no-locale", "--no-sync",
	}
	c := s.command("initdb", s.programs.Initdb, append(args, o.InitdbArgs...))
	if _, err := child.Run(ctx, c); err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(s.dataDir(), "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString("\n" + o.configuration(s.socketDir()))
	return errors.Join(err, f.Close())
}

// command runs a program as the server's user. Its standard input is the
// folder's lock, an empty file, which is so held by all that it forks.
func (s *Server) command(name, path string, args []string) child.Command {
	return child.Command{
		Name: name, Path: path, Args: args, Env: s.env,
		Dir: s.folder.path, Credential: s.owner.credential, Stdin: s.folder.lock,
	}
}

// run starts the postmaster and waits until it is ready.
func (s *Server) run(ctx context.Context) error {
	log, err := os.OpenFile(s.LogFile, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	s.log = log
	c := s.command("postgres", s.programs.Postgres, []string{"-D", s.dataDir()})
	// An immediate shutdown, whoever is connected. A plain SIGTERM would wait
	// for clients.
	c.EndSignal, c.Grace = syscall.SIGQUIT, stopGrace
	c.OnStderrLine = func(line string) {
		_, _ = fmt.Fprintln(log, line) // for the operator only: errors carry the last lines themselves
	}
	// It outlives ctx, which is that of the start.
	serverCtx, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	s.stop = stop
	if s.process, err = child.Start(serverCtx, c); err != nil {
		return err
	}
	return s.awaitReady(ctx)
}

// awaitReady waits until the server accepts connections. When it does not, the
// server is ended and the error carries the last lines of its log.
func (s *Server) awaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startTime, fmt.Errorf("not ready within %s", startTime))
	defer cancel()
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for {
		select {
		case <-s.process.Exited():
			return s.outcome()
		case <-ctx.Done():
			s.stop(context.Cause(ctx))
			return s.outcome()
		case <-tick.C:
			if s.ready() {
				return nil
			}
		}
	}
}

// outcome waits for the end of a server that should run.
func (s *Server) outcome() error {
	if _, err := s.process.Wait(); err != nil {
		return err
	}
	return errors.New("postgres ended with status 0")
}

// ready reads the state that the postmaster writes into its pid file
// (miscadmin.h, LOCK_FILE_LINE_PM_STATUS).
func (s *Server) ready() bool {
	text, err := os.ReadFile(filepath.Join(s.dataDir(), "postmaster.pid"))
	if err != nil {
		return false
	}
	lines := strings.Split(string(text), "\n")
	return len(lines) >= 8 && lines[0] == strconv.Itoa(s.process.PID()) && strings.TrimSpace(lines[7]) == "ready"
}

// end stops the server. That it had ended before is an error.
func (s *Server) end() error {
	if s.log != nil {
		defer s.log.Close() // a log line that is lost changes nothing
	}
	if s.stop != nil {
		s.stop(errClosed)
	}
	if s.process == nil {
		return nil
	}
	if err := s.outcome(); !errors.Is(err, errClosed) {
		return fmt.Errorf("throwaway server ended before it was closed: %w", err)
	}
	return nil
}
