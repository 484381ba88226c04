package child

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
)

const copyBytes = 256 << 10

// wire builds the exec.Cmd and its pipes. Every stream that the child gets is
// a file, so that os/exec copies nothing and its Wait only reaps.
func (p *Process) wire(piped bool) error {
	c := p.command
	p.cmd = &exec.Cmd{
		Path: c.Path,
		Args: append([]string{c.Path}, c.Args...),
		Env:  append([]string{}, c.Env...), // never nil: nil would inherit ours
		Dir:  c.Dir,
		SysProcAttr: &syscall.SysProcAttr{
			Setpgid:    true,
			Pdeathsig:  c.endSignal(),
			Credential: c.Credential,
		},
	}
	if err := p.wireStdin(); err != nil {
		return err
	}
	if err := p.wireStdout(piped); err != nil {
		return err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	p.stderr = newPipe(r)
	p.cmd.Stderr = w
	p.closing = append(p.closing, w)
	return nil
}

func (p *Process) wireStdin() error {
	if p.command.Stdin == nil {
		return nil
	}
	if f, ok := p.command.Stdin.(*os.File); ok {
		p.cmd.Stdin = f
		return nil
	}
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	enlarge(w)
	p.cmd.Stdin, p.stdin = r, w
	p.closing = append(p.closing, r)
	return nil
}

func (p *Process) wireStdout(piped bool) error {
	if !piped {
		if p.command.Stdout == nil {
			return nil
		}
		if f, ok := p.command.Stdout.(*os.File); ok {
			p.cmd.Stdout = f
			return nil
		}
	}
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	enlarge(r)
	p.stdout = newPipe(r)
	p.cmd.Stdout = w
	p.closing = append(p.closing, w)
	return nil
}

// closeChildEnds closes our copies of the child's ends: while we held one, the
// child's exit would not be the end of its output.
func (p *Process) closeChildEnds() {
	for _, c := range p.closing {
		c.Close()
	}
	p.closing = nil
}

func (p *Process) closeAll() {
	p.closeChildEnds()
	if p.stdin != nil {
		p.stdin.Close()
	}
	for _, end := range []*pipe{p.stdout, p.stderr} {
		if end != nil {
			end.Close()
		}
	}
}

// feed copies Stdin to the child. When reading fails, the child is ended while
// its input is still open: it must not see an end that is none.
func (p *Process) feed() {
	src := &sourceReader{r: p.command.Stdin}
	_, err := io.CopyBuffer(struct{ io.Writer }{p.stdin}, src, make([]byte, copyBytes))
	if src.err != nil {
		err = fmt.Errorf("read the input of %s: %w", p.command.Name, src.err)
		p.copyErr.store(err)
		p.cancel(err)
		return // endGroup closes it
	}
	// A write error is EPIPE: the child's own exit says what that means.
	_ = err
	p.stdin.Close()
}

// sourceReader tells an error of Read from one of Write.
type sourceReader struct {
	r   io.Reader
	err error
}

func (s *sourceReader) Read(b []byte) (int, error) {
	n, err := s.r.Read(b)
	if err != nil && err != io.EOF {
		s.err = err
	}
	return n, err
}

// collect copies the child's output to Stdout.
func (p *Process) collect() {
	_, err := io.CopyBuffer(struct{ io.Writer }{p.command.Stdout}, p.stdout, make([]byte, copyBytes))
	if err == nil {
		return
	}
	err = fmt.Errorf("copy the output of %s: %w", p.command.Name, err)
	p.copyErr.store(err)
	p.cancel(err)
	p.stdout.Close() // a blocked child is woken by SIGPIPE
}

func (p *Process) readStderr() {
	lines := lineSplitter{emit: p.command.OnStderrLine}
	buf := make([]byte, 32<<10)
	for {
		n, err := p.stderr.Read(buf)
		p.tail.write(buf[:n])
		lines.write(buf[:n])
		if err != nil {
			lines.end()
			return
		}
	}
}

// errorOnce keeps the first error that it is given.
type errorOnce struct {
	mu  sync.Mutex
	err error
}

func (e *errorOnce) store(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.err == nil {
		e.err = err
	}
}

func (e *errorOnce) load() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.err
}
