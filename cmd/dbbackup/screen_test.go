package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// screen is a terminal of 80 columns with dbbackup on it, and somebody who
// types.
type screen struct {
	cmd            *exec.Cmd
	keyboard, side *os.File // the two sides of the pseudo terminal
	drawn          sync.WaitGroup

	mu       sync.Mutex
	lines    [][]rune // with what has scrolled away
	row, col int
	unknown  []string // escape sequences that are not understood
}

const screenColumns = 80

// startOnScreen starts dbbackup as a login shell would. The end of the test
// ends it.
func startOnScreen(t *testing.T, env []string, args ...string) *screen {
	t.Helper()
	return startOnScreenUnder(t, env, nil, args...)
}

// startOnScreenUnder is startOnScreen by another program, see startUnder.
func startOnScreenUnder(t *testing.T, env, wrapper []string, args ...string) *screen {
	t.Helper()
	argv := append(append(slices.Clone(wrapper), "dbbackup"), args...)
	s := &screen{}
	s.open(t)
	ctx, cancel := context.WithTimeout(context.Background(), runLimit)
	s.cmd = exec.CommandContext(ctx, argv[0], argv[1:]...)
	s.cmd.Env, s.cmd.Dir = append(hermeticEnv(t), env...), t.TempDir()
	s.cmd.Stdin, s.cmd.Stdout, s.cmd.Stderr = s.side, s.side, s.side
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s.drawn.Go(s.draw)
	t.Cleanup(func() {
		cancel()
		if s.cmd.ProcessState == nil {
			_ = s.cmd.Wait()
		}
		_ = s.side.Close()
		s.drawn.Wait()
		_ = s.keyboard.Close()
	})
	return s
}

func (s *screen) open(t *testing.T) {
	t.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Skipf("no pseudo terminals here: %v", err)
	}
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		err = unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: screenColumns})
	}
	if err != nil {
		t.Fatal(err)
	}
	s.keyboard = os.NewFile(uintptr(fd), "ptmx")
	if s.side, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		t.Fatal(err)
	}
}

// draw draws until the other side is closed.
func (s *screen) draw() {
	var held []byte
	chunk := make([]byte, 4096)
	for {
		n, err := s.keyboard.Read(chunk)
		held = s.put(append(held, chunk[:n]...))
		if err != nil {
			return
		}
	}
}

// put draws what is whole and returns what is left.
func (s *screen) put(text []byte) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(text) > 0 {
		switch c := text[0]; {
		case c == '\x1b':
			end := strings.IndexFunc(string(text[1:]), func(r rune) bool { return r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z' })
			if end < 0 {
				return text
			}
			s.escape(string(text[1 : end+2]))
			text = text[end+2:]
			continue
		case c == '\r':
			s.col = 0
		case c == '\n':
			s.row++
		case !utf8.FullRune(text):
			return text
		default:
			r, size := utf8.DecodeRune(text)
			s.write(r)
			text = text[size:]
			continue
		}
		text = text[1:]
	}
	return nil
}

func (s *screen) write(r rune) {
	if s.col == screenColumns {
		s.row, s.col = s.row+1, 0
	}
	for len(s.lines) <= s.row {
		s.lines = append(s.lines, nil)
	}
	for len(s.lines[s.row]) <= s.col {
		s.lines[s.row] = append(s.lines[s.row], ' ')
	}
	s.lines[s.row][s.col] = r
	s.col++
}

// escape knows cursor up, and erase to the end of the screen.
func (s *screen) escape(sequence string) {
	var n int
	switch {
	case sequence == "[J":
		if s.row < len(s.lines) {
			s.lines = s.lines[:s.row+1]
			s.lines[s.row] = s.lines[s.row][:min(s.col, len(s.lines[s.row]))]
		}
	case strings.HasSuffix(sequence, "A"):
		if _, err := fmt.Sscanf(sequence, "[%dA", &n); err == nil {
			s.row = max(0, s.row-n)
			return
		}
		fallthrough
	default:
		s.unknown = append(s.unknown, sequence)
	}
}

// text is what has been on the screen and is not erased.
func (s *screen) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var b strings.Builder
	for _, line := range s.lines {
		b.WriteString(strings.TrimRight(string(line), " ") + "\n")
	}
	return b.String()
}

func (s *screen) shows(texts ...string) func() bool {
	return func() bool {
		for _, text := range texts {
			if !strings.Contains(s.text(), text) {
				return false
			}
		}
		return true
	}
}

func (s *screen) enter(t *testing.T, text string) {
	t.Helper()
	if _, err := s.keyboard.WriteString(text); err != nil {
		t.Fatal(err)
	}
}

// echoes reports whether the terminal shows what is typed.
func (s *screen) echoes(t *testing.T) bool {
	t.Helper()
	state, err := unix.IoctlGetTermios(int(s.side.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	return state.Lflag&unix.ECHO != 0
}

// wait waits for the end of dbbackup and of the drawing, and returns the exit
// code and what is left on the screen.
func (s *screen) wait(t *testing.T) (int, string) {
	t.Helper()
	err := s.cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	// The master reads to the end only after every other side is closed.
	if err := s.side.Close(); err != nil {
		t.Fatal(err)
	}
	s.drawn.Wait()
	t.Logf("%q exited with %d\n%s", s.cmd.Args, s.cmd.ProcessState.ExitCode(), s.text())
	if len(s.unknown) > 0 {
		t.Errorf("escape sequences %q are not understood", s.unknown)
	}
	return s.cmd.ProcessState.ExitCode(), s.text()
}
