package lease

import (
	"errors"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// process names a process so that only its own machine, since the same boot and
// in the same PID namespace, says anything about it.
type process struct {
	Boot      string `json:"boot,omitempty"`
	Namespace string `json:"namespace,omitempty"`
	PID       int    `json:"pid,omitempty"`
}

func thisProcess() process {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return process{}
	}
	namespace, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		return process{}
	}
	return process{Boot: strings.TrimSpace(string(boot)), Namespace: namespace, PID: os.Getpid()}
}

// isDead says that the process is known to be gone. A number that was given to
// another process since then makes it look alive, which costs only time.
func (p process) isDead() bool {
	here := thisProcess()
	if p.PID <= 0 || p.Boot == "" || p.Boot != here.Boot || p.Namespace != here.Namespace {
		return false
	}
	return errors.Is(unix.Kill(p.PID, 0), unix.ESRCH)
}
