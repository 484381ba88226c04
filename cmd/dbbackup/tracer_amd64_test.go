package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// injection is one fault in one system call of a run. Unlike strace's, which
// count for each thread, its calls are counted over all threads of dbbackup, so
// that every call of a run can be hit. Children are not traced.
type injection struct {
	calls []uint64 // numbers of the calls that are counted; nil: all that change a store
	path  string   // only calls on a file whose path, with a $ at its end, contains this
	nth   int      // the fault is at this one of them; 0: none, they are only counted
	errno unix.Errno
	once  bool // with errno: at the nth call only; else at every one from there on
}

// changing are the calls by which dbbackup changes a store. Closing is none,
// and an open counts only if it may create.
var changing = []uint64{
	unix.SYS_OPENAT, unix.SYS_WRITE, unix.SYS_PWRITE64, unix.SYS_FSYNC, unix.SYS_FTRUNCATE, unix.SYS_FCHMOD, unix.SYS_FCHMODAT,
	unix.SYS_FCHMODAT2, unix.SYS_MKDIRAT, unix.SYS_RENAMEAT, unix.SYS_RENAMEAT2, unix.SYS_LINKAT, unix.SYS_UNLINKAT,
}

// traced is how a run under a tracer ended.
type traced struct {
	result
	calls int  // that were counted
	fired bool // the fault was brought about
}

// trace runs dbbackup with a fault. Without errno the fault is SIGKILL instead
// of the nth call.
func trace(t testing.TB, in injection, env []string, args ...string) traced {
	t.Helper()
	path, err := exec.LookPath("dbbackup")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	stdout, stderr := createFile(t, dir+"/stdout"), createFile(t, dir+"/stderr")
	type outcome struct {
		traced
		err error
	}
	done := make(chan outcome)
	go func() { // every call of ptrace must come from the thread that began it
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		tr := tracer{in: in, threads: map[int]*thread{}}
		err := tr.run(path, append([]string{"dbbackup"}, args...), append(hermeticEnv(t), env...), dir, stdout, stderr)
		done <- outcome{tr.traced, err}
	}()
	got := <-done
	if got.err != nil {
		cannot(t, fmt.Sprintf("trace: %v", got.err))
	}
	got.stdout, got.stderr = string(readFile(t, stdout.Name())), string(readFile(t, stderr.Name()))
	return got.traced
}

func createFile(t testing.TB, path string) *os.File {
	t.Helper()
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = file.Close() })
	return file
}

// thread is a traced thread.
type thread struct {
	inCall bool // stopped at the entry last, so that the next stop is the exit
	fail   bool // this call was refused at its entry
}

type tracer struct {
	traced
	in      injection
	leader  int
	threads map[int]*thread
}

const ptraceOptions = unix.PTRACE_O_TRACECLONE | unix.PTRACE_O_TRACESYSGOOD | unix.PTRACE_O_EXITKILL

// run starts the program and serves its stops until it has ended.
func (tr *tracer) run(path string, argv, env []string, dir string, stdout, stderr *os.File) error {
	process, err := os.StartProcess(path, argv, &os.ProcAttr{
		Dir: dir, Env: env, Files: []*os.File{nil, stdout, stderr}, Sys: &syscall.SysProcAttr{Ptrace: true, Setpgid: true},
	})
	if err != nil {
		return err
	}
	tr.leader = process.Pid
	defer process.Release() //nolint:errcheck // it was waited for below
	var status unix.WaitStatus
	if _, err := unix.Wait4(tr.leader, &status, 0, nil); err != nil {
		return err
	}
	if err := unix.PtraceSetOptions(tr.leader, ptraceOptions); err != nil {
		return err
	}
	tr.threads[tr.leader] = &thread{}
	if err := unix.PtraceSyscall(tr.leader, 0); err != nil {
		return err
	}
	return tr.serve()
}

func (tr *tracer) serve() error {
	for len(tr.threads) > 0 {
		pid, status, err := tr.next()
		if err != nil {
			return err
		}
		if status.Exited() || status.Signaled() {
			if delete(tr.threads, pid); pid == tr.leader {
				tr.code = status.ExitStatus() // -1 when a signal ended it
				return nil
			}
			continue
		}
		if tr.threads[pid] == nil {
			tr.threads[pid] = &thread{} // its first stop
		}
		if err := unix.PtraceSyscall(pid, tr.stopped(pid, status)); err != nil && !errors.Is(err, unix.ESRCH) {
			return err
		}
	}
	return errors.New("all threads ended before their process")
}

// next waits for one of the run's own threads. They are told by their process group:
// what other tests started from this thread of ours is left to them.
func (tr *tracer) next() (int, unix.WaitStatus, error) {
	var status unix.WaitStatus
	for {
		pid, err := unix.Wait4(-tr.leader, &status, unix.WALL|unix.WNOTHREAD, nil)
		if !errors.Is(err, unix.EINTR) {
			return pid, status, err
		}
	}
}

// stopped handles one stop and returns the signal that the thread shall get.
func (tr *tracer) stopped(pid int, status unix.WaitStatus) int {
	const syscallStop = unix.SIGTRAP | 0x80
	switch signal := status.StopSignal(); signal {
	case syscallStop:
		tr.call(pid, tr.threads[pid])
		return 0
	case unix.SIGTRAP, unix.SIGSTOP: // of the tracing itself
		return 0
	default:
		return int(signal)
	}
}

func (tr *tracer) call(pid int, th *thread) {
	th.inCall = !th.inCall
	var regs unix.PtraceRegs
	if err := unix.PtraceGetRegs(pid, &regs); err != nil {
		return // killed meanwhile
	}
	switch {
	case !th.inCall && th.fail:
		th.fail = false
		regs.Rax = uint64(-int64(tr.in.errno))
		_ = unix.PtraceSetRegs(pid, &regs)
	case th.inCall && tr.counts(pid, &regs):
		tr.calls++
		if tr.in.nth == 0 || tr.calls < tr.in.nth || tr.in.once && tr.fired {
			return
		}
		tr.fired = true
		if tr.in.errno == 0 {
			_ = unix.Kill(tr.leader, unix.SIGKILL)
			return
		}
		th.fail = true
		regs.Orig_rax = ^uint64(0) // no such call: nothing happens
		_ = unix.PtraceSetRegs(pid, &regs)
	}
}

// counts reports whether a call, at its entry, is one that is looked for.
func (tr *tracer) counts(pid int, regs *unix.PtraceRegs) bool {
	call, wanted := regs.Orig_rax, tr.in.calls
	if wanted == nil {
		wanted = changing
	}
	for _, number := range wanted {
		if number == call {
			return (call != unix.SYS_OPENAT || regs.Rdx&unix.O_CREAT != 0) && strings.Contains(tr.pathOf(pid, regs)+"$", tr.in.path)
		}
	}
	return false
}

// pathOf is the path that a call is about: of a rename the new one.
func (tr *tracer) pathOf(pid int, regs *unix.PtraceRegs) string {
	fd, name := regs.Rdi, uint64(0)
	switch regs.Orig_rax {
	case unix.SYS_OPENAT, unix.SYS_MKDIRAT, unix.SYS_UNLINKAT, unix.SYS_FCHMODAT, unix.SYS_FCHMODAT2:
		name = regs.Rsi
	case unix.SYS_RENAMEAT, unix.SYS_RENAMEAT2, unix.SYS_LINKAT:
		fd, name = regs.Rdx, regs.R10
	}
	path, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", pid, int32(fd)))
	if name != 0 {
		path += "/" + readString(pid, name)
	}
	return path
}

func readString(pid int, address uint64) string {
	var text [256]byte
	local := []unix.Iovec{{Base: (*byte)(unsafe.Pointer(&text[0])), Len: uint64(len(text))}}
	n, err := unix.ProcessVMReadv(pid, local, []unix.RemoteIovec{{Base: uintptr(address), Len: len(text)}}, 0)
	if err != nil {
		return ""
	}
	name, _, _ := strings.Cut(string(text[:n]), "\x00")
	return name
}
