package sysprobe

import "fmt"

// Severity says how much an advice matters.
type Severity int

// The severities.
const (
	Fine      Severity = iota // the host is as advised
	Suggested                 // it would do better otherwise
	Urgent                    // backups may fail, or are not safe, as it is
)

func (s Severity) String() string {
	switch s {
	case Fine:
		return "fine"
	case Suggested:
		return "suggested"
	case Urgent:
		return "urgent"
	}
	return fmt.Sprintf("severity %d", int(s))
}

// MarshalText makes severities words in JSON.
func (s Severity) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Advice is one thing about the host: what it is, and what it should be.
type Advice struct {
	Key      string   `json:"key"` // e.g. vm.swappiness, nofile, scheduler:sda, mount:/srv
	Current  string   `json:"current"`
	Wanted   string   `json:"wanted"`
	Reason   string   `json:"reason"`
	Warning  string   `json:"warning,omitempty"` // where PostgreSQL's manual disagrees, or what the change can break
	Severity Severity `json:"severity"`
}

// Advise compares a host with what suits a database server that is backed up.
// Settings are listed whether they are fine or not; what unknown facts would
// decide is left out, and space, memory and network file systems appear only
// when there is something to say. It never advises ext4's data=writeback.
func Advise(f Facts) []Advice {
	var list []Advice
	list = append(list, adviseKernel(f.Settings)...)
	list = append(list, adviseLimits(f)...)
	for _, d := range f.BlockDevices {
		list = append(list, adviseDevice(d)...)
	}
	for _, data := range f.Data {
		list = append(list, adviseMount(data)...)
	}
	list = append(list, adviseStore(f)...)
	list = append(list, adviseMemory(f)...)
	return list
}

// Worst returns the highest severity in a list, Fine for an empty one.
func Worst(list []Advice) Severity {
	most := Fine
	for _, a := range list {
		most = max(most, a.Severity)
	}
	return most
}
