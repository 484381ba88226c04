package retention

import (
	"fmt"
	"time"

	"dbbackup/internal/fault"
)

// Policy says how many sets of each database stay. The counts add up: a set
// stays when any of them keeps it. Days, ISO weeks, months and years are those
// of UTC, and the newest set of each is the one that stays; those without a set
// are not counted.
type Policy struct {
	Last, Daily, Weekly, Monthly, Yearly int
	Within                               time.Duration // younger than this, by the end of the capture
	AllowShrink                          bool          // also when the newest set is much smaller than those before it
}

// Validate refuses a policy that keeps nothing (T89).
func (p Policy) Validate() error {
	for _, n := range []int{p.Last, p.Daily, p.Weekly, p.Monthly, p.Yearly} {
		if n < 0 {
			return fault.New(fault.Usage, "", "a number of sets to keep cannot be negative: %d", n)
		}
	}
	if p.Within < 0 {
		return fault.New(fault.Usage, "", "a time within which sets are kept cannot be negative: %s", p.Within)
	}
	if p.Last+p.Daily+p.Weekly+p.Monthly+p.Yearly == 0 && p.Within == 0 {
		return fault.New(fault.Usage, "give at least one of --keep-last, --keep-daily, --keep-weekly, --keep-monthly, --keep-yearly and --keep-within",
			"the policy keeps nothing")
	}
	return nil
}

// rule keeps the newest set of each of some periods.
type rule struct {
	name   string
	count  int
	period func(time.Time) string
}

func (p Policy) rules() []rule {
	week := func(t time.Time) string {
		year, number := t.ISOWeek()
		return fmt.Sprintf("%04d-W%02d", year, number)
	}
	format := func(layout string) func(time.Time) string {
		return func(t time.Time) string { return t.Format(layout) }
	}
	return []rule{
		{"last", p.Last, nil},
		{"daily", p.Daily, format("2006-01-02")},
		{"weekly", p.Weekly, week},
		{"monthly", p.Monthly, format("2006-01")},
		{"yearly", p.Yearly, format("2006")},
	}
}
