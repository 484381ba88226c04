// Package seal is the cryptography of backup sets, and the only owner of age
// (filippo.io/age). It knows keys and streams, and nothing of sets or stores.
//
// There are four keys, and each allows one thing:
//   - A Recipients list encrypts: with it a set is made, and nothing is read.
//   - A Keyring holds identities or a passphrase: with it a set is read.
//   - A Signer says who made a set.
//   - Trusted public keys tell who did.
//
// A Secret is a set's own age identity, made for it alone. All of the set is
// encrypted to it; the Secret itself is encrypted to the Recipients, so that
// changing these rewrites one small file (age's own file key is made anew for
// every file). Nothing is invented here: files are age files, the signature is
// Ed25519 over the bytes of a file, the code of authentication is HMAC-SHA256
// under a key that HKDF-SHA256 derives from the Secret.
//
// Not promised: that memory is wiped. No error and no text of this package
// holds a secret (S1).
package seal
