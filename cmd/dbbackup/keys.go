package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/urfave/cli/v2"

	"dbbackup/internal/backupset"
	"dbbackup/internal/fault"
	"dbbackup/internal/report"
	"dbbackup/internal/seal"
	"dbbackup/internal/store"
)

// The files of a folder of keys: `key new` makes all four, --keys takes those
// that are there.
const (
	identityFile   = "identity.txt"
	recipientsFile = "recipients.txt"
	signingFile    = "signing.pem"
	trustedFile    = "trusted.pem"
)

// passphraseVariable is no flag's: it holds the passphrase itself.
const passphraseVariable = "DBBACKUP_PASSPHRASE"

// sealingFlags are those of commands that make sets.
func sealingFlags() []cli.Flag {
	return under("Encryption", join([]cli.Flag{
		boolFlag("encrypt", "encrypt everything with age, to the recipients or with the passphrase"),
	}, recipientFlags(), []cli.Flag{signFlag()}, readingKeyFlags()))
}

func recipientFlags() []cli.Flag {
	return []cli.Flag{
		listFlag("recipient", "who can read the set: an age or SSH public `KEY`; may be repeated"),
		stringFlag("recipients-file", "recipients, one in each line of this `FILE`", ""),
	}
}

func signFlag() cli.Flag {
	return stringFlag("sign-with", "sign the set with the private key in this PEM `FILE`", "")
}

// resumeKeyFlags are those of resume: recipients were chosen when the set was begun.
func resumeKeyFlags() []cli.Flag {
	return under("Encryption", join([]cli.Flag{signFlag()}, readingKeyFlags()))
}

// keyFlags are those of commands that read sets.
func keyFlags() []cli.Flag { return under("Encryption", readingKeyFlags()) }

func readingKeyFlags() []cli.Flag {
	return []cli.Flag{
		stringFlag("keys", "take "+identityFile+", "+recipientsFile+", "+signingFile+" and "+trustedFile+" from this `DIR`, as far as they are there", ""),
		listFlag("identity", "open encrypted sets with the private key in this `FILE`; may be repeated"),
		stringFlag("passphrase-file", "the passphrase of sets, or of identity files, is the first line of this `FILE` (or "+passphraseVariable+" is the passphrase)", ""),
		stringFlag("trust", "only sets count that were signed with a key of this PEM `FILE`", ""),
	}
}

// inKeys is a file of the folder of keys; empty where there is none.
func (s *settings) inKeys(name string) (string, error) {
	folder := s.text("keys", s.a.config.Keys)
	if folder == "" {
		return "", nil
	}
	path := filepath.Join(folder, name)
	_, err := os.Stat(path)
	switch {
	case err == nil:
		return path, nil
	case !errors.Is(err, fs.ErrNotExist):
		return "", fault.New(fault.Usage, "", "--keys: %w", err)
	}
	if _, err := os.Stat(folder); err != nil {
		return "", fault.New(fault.Usage, "`dbbackup key new DIR` makes one", "--keys: %w", err)
	}
	return "", nil
}

// keyFile is the file that a flag names, or else the one in the folder of keys.
func (s *settings) keyFile(flag string, inFile *string, name string) (string, error) {
	if err := s.refuseEmpty(flag, "keys"); err != nil {
		return "", err
	}
	if path := s.text(flag, inFile); path != "" {
		return path, nil
	}
	return s.inKeys(name)
}

// readSecret reads a file that nobody else may read.
func readSecret(path string) ([]byte, error) {
	text, err := os.ReadFile(path) //nolint:gosec // the user names it
	if err != nil {
		return nil, fault.New(fault.Usage, "", "%w", err)
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, fault.New(fault.Usage, "", "%w", err)
	}
	if info.Mode().IsRegular() && info.Mode().Perm()&0o007 != 0 {
		return nil, fault.New(fault.Precondition, "chmod 600 "+path, "%s can be read by everybody (mode %04o)", path, info.Mode().Perm())
	}
	return text, nil
}

// readKeys resolves what the command has to open sets with, and whom it trusts.
func (s *settings) readKeys(ctx context.Context) (backupset.Keys, error) {
	keys := backupset.Keys{Ring: &seal.Keyring{}}
	files := s.list("identity", s.a.config.Identities)
	if len(files) == 0 {
		path, err := s.inKeys(identityFile)
		if err != nil {
			return keys, err
		}
		if path != "" {
			files = []string{path}
		}
	}
	for _, path := range files {
		text, err := readSecret(path)
		if err != nil {
			return keys, err
		}
		if err := keys.Ring.AddIdentities(path, text); err != nil {
			return keys, err
		}
	}
	passphrase, given, err := s.givenPassphrase()
	switch {
	case err != nil:
		return keys, err
	case given:
		keys.Ring.SetPassphrase(func() (string, error) { return passphrase, nil })
	case len(files) > 0 && s.a.terminal().CanAsk():
		keys.Ring.SetPassphrase(func() (string, error) { return s.a.askSecret(ctx, "Passphrase: ") })
	}
	path, err := s.keyFile("trust", s.a.config.Trust, trustedFile)
	if err != nil || path == "" {
		return keys, err
	}
	text, err := os.ReadFile(path) //nolint:gosec // the user names it
	if err != nil {
		return keys, fault.New(fault.Usage, "", "--trust: %w", err)
	}
	keys.Trusted, err = seal.ParseTrusted(path, text)
	return keys, err
}

// givenPassphrase is the passphrase of a file or of the environment.
func (s *settings) givenPassphrase() (string, bool, error) {
	path := s.text("passphrase-file", s.a.config.PassphraseFile)
	if path == "" {
		passphrase := s.a.lookup(passphraseVariable)
		return passphrase, passphrase != "", nil
	}
	passphrase, err := readPassphrase(path)
	return passphrase, err == nil, err
}

// readPassphrase reads a passphrase from the first line of a file.
func readPassphrase(path string) (string, error) {
	text, err := readSecret(path)
	if err != nil {
		return "", err
	}
	line, _, _ := bytes.Cut(text, []byte("\n"))
	passphrase := string(bytes.TrimSuffix(line, []byte("\r")))
	if passphrase == "" {
		return "", fault.New(fault.Usage, "", "the first line of %s is empty", path)
	}
	return passphrase, nil
}

// sealing resolves how a new set is encrypted; nil: not at all.
func (s *settings) sealing(ctx context.Context) (*backupset.Sealing, error) {
	encrypt := s.yes("encrypt", s.a.config.Encrypt)
	to, named, err := s.recipients()
	if err != nil {
		return nil, err
	}
	signer, err := s.signer()
	switch {
	case err != nil:
		return nil, err
	case !encrypt && (named || signer != nil) && !s.IsSet("encrypt") && s.a.config.Encrypt == nil:
		return nil, fault.New(fault.Usage, "give --encrypt, or --encrypt=false", "keys were given, and it was not said that the set is to be encrypted")
	case !encrypt:
		return nil, nil //nolint:nilnil // there is nothing to encrypt
	}
	keys, err := s.readKeys(ctx)
	if err != nil {
		return nil, err
	}
	if to.Empty() {
		if err := s.addPassphrase(ctx, to); err != nil {
			return nil, err
		}
	}
	return &backupset.Sealing{To: to, Signer: signer, Keys: keys}, to.Validate()
}

// resumed resolves the keys for a set that an interrupted run left; whether it is
// encrypted is seen when it is opened.
func (s *settings) resumed(ctx context.Context) (*backupset.Sealing, error) {
	keys, err := s.readKeys(ctx)
	if err != nil {
		return nil, err
	}
	signer, err := s.signer()
	return &backupset.Sealing{Signer: signer, Keys: keys}, err
}

// recipients are those of the flags, the config file and the folder of keys; named
// says whether there are any.
func (s *settings) recipients() (to *seal.Recipients, named bool, err error) {
	to = &seal.Recipients{}
	for _, key := range s.list("recipient", s.a.config.Recipients) {
		if err := to.Add(key); err != nil {
			return nil, false, fmt.Errorf("--recipient: %w", err)
		}
	}
	path, err := s.keyFile("recipients-file", s.a.config.RecipientsFile, recipientsFile)
	if err != nil || path == "" {
		return to, !to.Empty(), err
	}
	text, err := os.ReadFile(path) //nolint:gosec // the user names it
	if err != nil {
		return nil, false, fault.New(fault.Usage, "", "--recipients-file: %w", err)
	}
	if err := to.Add(string(text)); err != nil {
		return nil, false, fmt.Errorf("%s: %w", path, err)
	}
	return to, !to.Empty(), nil
}

func (s *settings) signer() (*seal.Signer, error) {
	path, err := s.keyFile("sign-with", s.a.config.SignWith, signingFile)
	if err != nil || path == "" {
		return nil, err
	}
	text, err := readSecret(path)
	if err != nil {
		return nil, err
	}
	return seal.ParseSigner(path, text)
}

// addPassphrase makes the passphrase the only recipient: a given one, or one that
// is typed twice.
func (s *settings) addPassphrase(ctx context.Context, to *seal.Recipients) error {
	passphrase, given, err := s.givenPassphrase()
	if err != nil {
		return err
	}
	if !given {
		if !s.a.terminal().CanAsk() {
			return nil // Validate says what is missing
		}
		if passphrase, err = s.a.askNewPassphrase(ctx); err != nil {
			return err
		}
	}
	return to.AddPassphrase(passphrase, 0)
}

// askNewPassphrase asks twice.
func (a *application) askNewPassphrase(ctx context.Context) (string, error) {
	first, err := a.askSecret(ctx, "New passphrase: ")
	if err != nil {
		return "", err
	}
	second, err := a.askSecret(ctx, "The same again: ")
	if err != nil {
		return "", err
	}
	if first != second {
		return "", fault.New(fault.Usage, "", "the two passphrases differ")
	}
	return first, nil
}

// openSet opens a set with the keys of the command. Where only a passphrase is
// missing, and somebody can be asked, it is asked for.
func (a *application) openSet(ctx context.Context, place store.Place, id string, keys backupset.Keys) (*backupset.Set, error) {
	set, err := backupset.Open(ctx, place, id, backupset.WithKeys(keys))
	if err != nil {
		return nil, err
	}
	if set.Locked() && a.terminal().CanAsk() {
		info, _, err := backupset.KeysOf(ctx, place, id)
		if err != nil {
			return nil, err
		}
		if len(info.Recipients) == 1 && info.Recipients[0].Key == "" {
			keys.Ring.SetPassphrase(func() (string, error) { return a.askSecret(ctx, "Passphrase of "+id+": ") })
			if set, err = backupset.Open(ctx, place, id, backupset.WithKeys(keys)); err != nil {
				return nil, err
			}
		}
	}
	a.warnUnproven(set, keys)
	return set, nil
}

// warnUnproven says where keys were given that prove nothing of a set.
func (a *application) warnUnproven(set *backupset.Set, keys backupset.Keys) {
	sealed := set.Envelope().Sealed
	switch {
	case sealed == nil && !keys.Ring.Empty():
		a.log.Warn("the set is not encrypted, although keys were given: nothing proves who made it", report.F("set", set.ID()))
	case sealed != nil && sealed.Signer != "" && len(keys.Trusted) == 0:
		a.log.Warn("the set is signed, and nobody was named to be trusted: give --trust FILE to prove who made it",
			report.F("set", set.ID()), report.F("signer", cmp.Or(sealed.Signer[:min(16, len(sealed.Signer))], "unknown")))
	}
}

// askSecret asks for a passphrase.
func (a *application) askSecret(ctx context.Context, prompt string) (string, error) {
	if !a.terminal().CanAsk() {
		return "", fault.New(fault.Usage, "--passphrase-file FILE, or "+passphraseVariable, "a passphrase can only be asked for on a terminal")
	}
	return a.terminal().AskHidden(ctx, prompt)
}
