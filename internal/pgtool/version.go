package pgtool

import (
	"fmt"
	"regexp"
	"strconv"
)

// Version is a PostgreSQL version. Before 10 the second number was part of the
// major version.
type Version struct{ Major, Minor int }

func (v Version) String() string { return fmt.Sprintf("%d.%d", v.Major, v.Minor) }

// VersionOf is the version behind a server_version_num, such as 150018.
func VersionOf(num int) Version {
	if num < 100000 {
		return Version{Major: num / 10000, Minor: num / 100 % 100}
	}
	return Version{Major: num / 10000, Minor: num % 10000}
}

// Num is the server_version_num of the version, such as 150018.
func (v Version) Num() int {
	if v.Major < 10 {
		return v.Major*10000 + v.Minor*100
	}
	return v.Major*10000 + v.Minor
}

// olderThan reports whether v's major version is older than that of other.
func (v Version) olderThan(other Version) bool {
	if v.Major != other.Major || v.Major >= 10 {
		return v.Major < other.Major
	}
	return v.Minor < other.Minor
}

// sameMajor reports whether both are of one major version.
func (v Version) sameMajor(other Version) bool {
	return !v.olderThan(other) && !other.olderThan(v)
}

// versionLine is what PostgreSQL's programs say to --version. Builds by others
// name another vendor; development versions have a word in place of the minor.
var versionLine = regexp.MustCompile(`^(\S+) \((?:PostgreSQL|EnterpriseDB)\) (\d+)(?:\.(\d+))?`)

// parseVersion reads the output of tool --version.
func parseVersion(tool, output string) (Version, bool) {
	m := versionLine.FindStringSubmatch(output)
	if m == nil || m[1] != tool {
		return Version{}, false
	}
	major, err := strconv.Atoi(m[2])
	if err != nil {
		return Version{}, false
	}
	minor, _ := strconv.Atoi(m[3]) // none in a development version: 0
	return Version{Major: major, Minor: minor}, true
}
