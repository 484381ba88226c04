package sftp

import (
	"path/filepath"
	"strings"

	"dbbackup/internal/store/lease"
)

// Options is what a URL does not say. Nothing in it is a default: Environment
// makes the Options that a command wants.
type Options struct {
	Create bool   // make the folder and its parents where they are missing
	User   string // the login name where the URL has none

	// AgentSocket is the socket of ssh-agent, empty for none.
	AgentSocket string
	// IdentityFiles are private keys. Each must be readable, and if it is
	// encrypted the agent must hold it.
	IdentityFiles []string
	// DefaultIdentities are private keys that are used where they can be.
	DefaultIdentities []string
	// Password is one, and a secret. PasswordFile is a file that holds one.
	Password     string
	PasswordFile string

	// KnownHosts are the files that hold host keys. Those that do not exist
	// are passed over.
	KnownHosts []string

	lease lease.Options // for tests, which do not wait for a heartbeat of 10 s
}

// Environment returns the Options that the environment asks for: SSH_AUTH_SOCK,
// DBBACKUP_SFTP_IDENTITY and DBBACKUP_SFTP_KNOWN_HOSTS (lists, as PATH is one),
// DBBACKUP_SFTP_PASSWORD, DBBACKUP_SFTP_PASSWORD_FILE, HOME and LOGNAME or USER.
// get returns a variable, empty where there is none.
func Environment(get func(string) string) Options {
	o := Options{
		User:          get("LOGNAME"),
		AgentSocket:   get("SSH_AUTH_SOCK"),
		IdentityFiles: list(get("DBBACKUP_SFTP_IDENTITY")),
		Password:      get("DBBACKUP_SFTP_PASSWORD"),
		PasswordFile:  get("DBBACKUP_SFTP_PASSWORD_FILE"),
		KnownHosts:    list(get("DBBACKUP_SFTP_KNOWN_HOSTS")),
	}
	if o.User == "" {
		o.User = get("USER")
	}
	home := get("HOME")
	if len(o.IdentityFiles) == 0 && home != "" {
		for _, name := range []string{"id_ed25519", "id_ecdsa", "id_rsa"} {
			o.DefaultIdentities = append(o.DefaultIdentities, filepath.Join(home, ".ssh", name))
		}
	}
	if len(o.KnownHosts) == 0 {
		if home != "" {
			o.KnownHosts = append(o.KnownHosts, filepath.Join(home, ".ssh", "known_hosts"))
		}
		o.KnownHosts = append(o.KnownHosts, "/etc/ssh/ssh_known_hosts")
	}
	return o
}

// list splits a list as PATH is one. An empty element is not the current folder.
func list(value string) []string {
	var names []string
	for _, name := range filepath.SplitList(value) {
		if strings.TrimSpace(name) != "" {
			names = append(names, name)
		}
	}
	return names
}
