package sysprobe

import (
	"cmp"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Unlimited is a resource limit that does not limit.
const Unlimited = math.MaxInt64

// ResourceLimits are limits of a process or a login. Unknown where nothing is
// known, Unlimited where there is none.
type ResourceLimits struct {
	OpenFilesSoft int64 `json:"nofile_soft"`
	OpenFilesHard int64 `json:"nofile_hard"`
	ProcessesSoft int64 `json:"nproc_soft"`
	ProcessesHard int64 `json:"nproc_hard"`
}

// unknownLimits knows nothing.
func unknownLimits() ResourceLimits {
	return ResourceLimits{Unknown, Unknown, Unknown, Unknown}
}

// processLimits reads /proc/self/limits, whose columns are name, soft, hard
// and unit.
func processLimits(t tree) ResourceLimits {
	l := unknownLimits()
	for line := range strings.Lines(t.text("/proc/self/limits")) {
		if rest, ok := strings.CutPrefix(line, "Max open files"); ok {
			l.OpenFilesSoft, l.OpenFilesHard = twoLimits(rest)
		}
		if rest, ok := strings.CutPrefix(line, "Max processes"); ok {
			l.ProcessesSoft, l.ProcessesHard = twoLimits(rest)
		}
	}
	return l
}

func twoLimits(columns string) (soft, hard int64) {
	fields := strings.Fields(columns)
	if len(fields) < 2 {
		return Unknown, Unknown
	}
	return limitValue(fields[0]), limitValue(fields[1])
}

func limitValue(s string) int64 {
	switch s {
	case "unlimited", "infinity", "-1":
		return Unlimited
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 {
		return Unknown
	}
	return n
}

// limitRule is a line of limits.conf(5) that applies to the user.
type limitRule struct {
	rank       int // how specific its domain is
	kind, item string
	value      int64
}

// configuredLimits reads limits.conf and limits.d as pam_limits does for the
// user: in the order of their names, a later line over an earlier one of the
// same kind of domain, a line for the user over one for a group over one for
// everybody. Of groups it knows only the one named like the user.
func configuredLimits(t tree, user string) ResourceLimits {
	l := unknownLimits()
	if user == "" {
		return l
	}
	var rules []limitRule
	files := []string{"/etc/security/limits.conf"}
	for _, name := range t.names("/etc/security/limits.d") {
		if strings.HasSuffix(name, ".conf") {
			files = append(files, "/etc/security/limits.d/"+name)
		}
	}
	for _, name := range files {
		for line := range strings.Lines(t.text(name)) {
			if rule, ok := parseLimitRule(line, user); ok {
				rules = append(rules, rule)
			}
		}
	}
	slices.SortStableFunc(rules, func(a, b limitRule) int { return cmp.Compare(a.rank, b.rank) })
	for _, rule := range rules {
		l.set(rule)
	}
	return l
}

func parseLimitRule(line, user string) (limitRule, bool) {
	line, _, _ = strings.Cut(line, "#")
	fields := strings.Fields(line)
	if len(fields) != 4 {
		return limitRule{}, false
	}
	rank := slices.Index([]string{"*", "@" + user, user}, fields[0])
	rule := limitRule{rank: rank, kind: fields[1], item: fields[2], value: limitValue(fields[3])}
	return rule, rank >= 0 && rule.value != Unknown
}

func (l *ResourceLimits) set(rule limitRule) {
	soft, hard := &l.OpenFilesSoft, &l.OpenFilesHard
	switch rule.item {
	case "nofile":
	case "nproc":
		soft, hard = &l.ProcessesSoft, &l.ProcessesHard
	default:
		return
	}
	if rule.kind == "soft" || rule.kind == "-" {
		*soft = rule.value
	}
	if rule.kind == "hard" || rule.kind == "-" {
		*hard = rule.value
	}
}
