//! Against messages that GnuPG 2.2 made.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::*;

const RSA2048_KEY: &str = "\
    mQENBGsB6VsBCADKJl4cSZaHiagNPaoetpr7hZyj510l5fdI3PIg3Wr3+JdXJ7umlhN9W7oxpUtUsUs5QQtCl4Jm/s7UaGlFeF/1\
    zs91RytNDhYjU6EkrDOzJlpVqzByuaZ4bfHcmWv0ssw0EbNKHTDyMEe7mLLu3gW+O4cCT5Yl4MBXG4Qb7TRgcVZ/ueofiN5wPhD0\
    6unE5r/55Wu3OK1TcGexu5/9j0WR0QS1yUz1cA1NGJY3nmgp9TCnBqpOmOlfWpOLlaa2iBpIKEmT9s/Qbm0Mhag47MFdm2n7dq7w\
    NGOBuhwLKEun/vE7RQcBOzTwgF7qzcIGAyTyXMSbCOlIUsXxySE5EpXLABEBAAG0E3JzYTIwNDhAZXhhbXBsZS5jb22JAU4EEwEK\
    ADgWIQRo3L1Ku9XuLt7CpR20QYZsAkToiwUCawHpWwIbAwULCQgHAgYVCgkICwIEFgIDAQIeAQIXgAAKCRC0QYZsAkToi6DGB/9e\
    CL2puKdjHdDLjxRevSK6o/WRs5T14hFY2iypQiVzJDuFBtyvX0RCPV8yupFraMvg3x2bVZKzQtvj443BOKpn6kJlzqJ5mq2w12Xa\
    HWINg26+PbmcsQlj4rUzfkBl00YuJWyA7V7MSEPQ1o7C8hxQyUkkkno02+RjmotXue2ka+0rjWw7Jr8M9wg7yB5OKK3mvWsBRMJa\
    pF02fFjfNWVyRAiBtbozh43BZ0X8ljTwwD2w//tv/MKGWuGlJ1OfJ2cOKidxN5jGdGHLaLpC1EYAgU+qkztl59Xo9PFhvUU1ixdY\
    WH65aiXSwQ7E0IrFcJ+qhZ57dwgYpDd82pqvgLs5";

const RSA2048_SIGNED: &str = "\
    owGbwMvMwMW4xbEth8nlRTfjafEkhmzGlwnFmel5qSkKSZUKRcWJRgYmFp2MHiwMjFwMRmKKLBl39nrtvvpO796hpbIwnaxMIG0i\
    MlDlDqkVibkFOal6yfm5DFycAjBlz7+x/4+aN+9Qzem/P64ZWZtItlmqPfdZILOBP2tvRPukTwq/r+z2u3xTbsWVKeX/1x+vFf1l\
    HHH6zWYVraWKMy8nxWRHpuW9ti1XDDa4knTFVGZu8PFbu/V/eVxWOfW+fe3etX/uXvf+tGJSurHu46/uMZoOJ0U1At/efacXv+y4\
    nQH/gXyB436fi1nPLDvQI/iw3V57QnLUReYDi9xnsIiJh8vJLZiz6/w3f182bRPLuy+s+IKV5l/Z9S37hffVNRflHbaXL9rtNTV4\
    zsrM/Uc61ZYsaeVY1fQm9Grij+73vEWqzy6zP8ziK94Rfzro2YbH8td//omf5qCziDV/+onQNdcZ/4SKurh03D34ySVDyaASAA==";

const ED25519_KEY: &str = "\
    mDMEawHpXRYJKwYBBAHaRw8BAQdA2tAncOZCgVeo24beOa0BUzCDJMkWO043xS51eeeeyke0E2VkMjU1MTlAZXhhbXBsZS5jb22I\
    kAQTFggAOBYhBAL8By3VLNQCWKSeozhPJiqTesfABQJrAeldAhsDBQsJCAcCBhUKCQgLAgQWAgMBAh4BAheAAAoJEDhPJiqTesfA\
    JikA/1lMxodPY5G7DxdjgrkVl9NzkXub/qrKN2r9Y8ceaj+9AP9susGyRA35N5RzeSsB3eMnKn8iSpU4EZJZGwyaVZTxAA==";

const ED25519_SIGNED: &str = "\
    owGbwMvMwCFm4a+mNbnq+AHG0+JJDNmMLxOLM9PzUlMUkioVUlOMTE0NLTu6WBjEOBiMxBRZmP6w617VucIUsWTeYphGViaQLhEZ\
    qGqH1IrE3IKcVL3k/FwGLk4BmLIpmQx/hbaq75W1Yjm2wnTXlkn6dguvqfzfdIVD4JK8XmbYonWZYgz/a3rr+DbfmrzF+8FCs+/9\
    Fyf2ukjOPhAv3ma1/rLo2cTtHAA=";

const NISTP256_KEY: &str = "\
    mFIEawHpXhMIKoZIzj0DAQcCAwT3Ox3CiLDNtc1KSgUkUKz3DKj54R44VTgoUMbZrcBcHDO+AEmeI1X9+T/vo5EkPKuXblu+FKhB\
    2SYkluFSCdFDtBRuaXN0cDI1NkBleGFtcGxlLmNvbYiQBBMTCAA4FiEECUsn/FeeibHyzhDGiicDYJT4F1oFAmsB6V4CGwMFCwkI\
    BwIGFQoJCAsCBBYCAwECHgECF4AACgkQiicDYJT4F1oqvAD/YEnWoxjOaXp9/xa4N4pzT5Jqgmw5F8CrE96xKExHH9QA/A7DWwDW\
    X2Ocs6y6QMRa5c6mC2x++4hx0gnJ7GZHwg+q";

const NISTP256_SIGNED: &str = "\
    owGbwMvMwCHcpc6cMOWHeBTjaYkkhmzGl4nFmel5qSkKSZUKeZnFJQVGpmYd3SwMwhwMxmKKLJze6n/C53Vu/HRO4BhMJysTSJuo\
    DEy5Q2pFYm5BTqpecn4uAxenAEzd2kZGhnN+lxclb8p6nG+UZJnEd/5atUmn/jbWH7qFk9f1V9x5fp6RYUtr4/bV358Lpssmfrn2\
    6P7sozrClbee8NRrrjkYnia6cTEA";

const NISTP384_KEY: &str = "\
    mG8EawHpXhMFK4EEACIDAwSvipXxFcO86dywTd9Wqtw2ujU3tQPOC24wb9sO65Jr6Cb3tUVIOZ4G22o0hj2/NN1AdA7P8D0cVyML\
    Ch7jZFA5XgCLswM3ABTSAMYdDM+5r5Ki7ZH4Ldl91q1OSmRaPH+0FG5pc3RwMzg0QGV4YW1wbGUuY29tiLAEExMJADgWIQTnZkat\
    UeqSVwErMo88oNm51llkDQUCawHpXgIbAwULCQgHAgYVCgkICwIEFgIDAQIeAQIXgAAKCRA8oNm51llkDb5iAYD3ppjfWoEHwneG\
    czvsaajg5hPozN2OvTGme9bAfwj7IS02IMDDCsvQJRZcAP6q9RQBgNL8inEYf2psjqeqissrjcmFm9fglwr/HyAEx1VN78nhe4ty\
    E7tKLr94yDhetlynbw==";

const NISTP384_SIGNED: &str = "\
    owGbwMvMwClss+DmzmuRKbyMpyWSGLIZXyYWZ6bnpaYoJFUq5GUWlxQYW5h0rGZhEOZkMBZTZHme5rY28NWkcEZto36YTlYmkDZR\
    GZhyh9SKxNyCnFS95PxcBi5OAZi6L52MDfPY3r/0SDFq6fFelpWU37+0MFkn54zDn+LZEpMMVzAorz8453uKcYjzlIZV3S4Cp9zz\
    Ges0Y6sCJ/4P8fk09V9eneu+tZ3ciXvT30yPybNpTLq4nenA6usfNOy++ixL/cppXGSuvQEA";

const SUB_KEY: &str = "\
    mDMEawHpXhYJKwYBBAHaRw8BAQdAUxymrP49hiwRYTTRpGL+GUHBiIlEZXTp0P+YQuSTWYy0D3N1YkBleGFtcGxlLmNvbYiQBBMW\
    CAA4FiEEaxbpQ8rnplTHHHsLv3sMicF1AAEFAmsB6V4CGwEFCwkIBwIGFQoJCAsCBBYCAwECHgECF4AACgkQv3sMicF1AAHiXQEA\
    w0uG4Y+Hi63WdSWeQ9TGlzwnapEAV4bKyyvPnH6zKJUBAL5tVzDBAzCysVyj7RlRkWf01WpNy05PG2u7SFeLa44LuDMEawHpXhYJ\
    KwYBBAHaRw8BAQdAfK+L6/mWwnJwdSDSrAo/C7t60pbNS5XQBcwMxKr8lESI7wQYFggAIBYhBGsW6UPK56ZUxxx7C797DInBdQAB\
    BQJrAeleAhsCAIEJEL97DInBdQABdiAEGRYIAB0WIQR4XJrV5VP9PPGAZXdvV7LpbKlRCwUCawHpXgAKCRBvV7LpbKlRCzvTAP0V\
    nb72YaQ3KXemrMr4J88Zhjq4H4PfEoJm0Kon6NC01AEA6EDLy29L7A6ghiFNCaPLam03Y0O9+BAm6vbQ3JIVpAlweQD/SWQNwyqf\
    id07xkoiKAPDIPqt3sPdFvOmLoUkUTuS2OEA/iqjMfhAfX8jMxXIUxO+HB4nVlu+3cc2k6oDrWJH7xAM";

const SUB_SIGNED: &str = "\
    owGbwMvMwCGWH77pZc7KQG7G08JJDNmMLxOLM9PzUlMUkioVikuTOtpYGMQ4GPTEFFkqYmZdfRr81+ZjQ2o5TBMrE0iHgAxQpUNq\
    RWJuQU6qXnJ+LgMXpwBMyVZFRobNHw1DZXZ+lUrdzF7woc4w5+jGZjFN3/93WOV8eEyibZIYGXbt9H+67n+D4eaZH3t43z45veVB\
    1byN0zcLfoxMeyi3K4IBAA==";

const EXPIRED_KEY: &str = "\
    mDMEXgvhABYJKwYBBAHaRw8BAQdAaIiQFC+18sP9FAO3LQuRELcLJ4BEFwAFSS9g3/bD8qm0E2V4cGlyZWRAZXhhbXBsZS5jb22I\
    lgQTFggAPhYhBAeA5itmxw0wwkOiIMSsPT7JSQbPBQJeC+EAAhsDBQkAAVGABQsJCAcCBhUKCQgLAgQWAgMBAh4BAheAAAoJEMSs\
    PT7JSQbPtM4A/0wwDM5KKbQuY9KxSeYXUrfRADF5zjPQIXz0rxjSCcgEAQDfKoofaCC15Z4l2AnuVHc+OZYPgHe2cdnmHvNmY3r+\
    Cw==";

const EXPIRED_SIGNED: &str = "\
    owGbwMvMwCF2ZI2t3UlPtvOMp8WTGOK43wsUZ6bnpaYoJFUqpFYUZBalpnR0sTCIcTAYiSmysDc80047zmtwyHmRAkwjKxNIl4gM\
    VLVDakVibkFOql5yfi4DF6cATNmzdwz/c5WflFmY2M2als16yFjhgb7P7KftRzcnid0Iu3zA854zB8P/oKkmAV2e/9jcZUr6O4u/\
    H885tMKswXuef9Yy7S1nFJ/yAwA=";

const REVOKED_KEY: &str = "\
    mDMEawHpkRYJKwYBBAHaRw8BAQdA27mceQveXHTLOe8GagRxIZ98MmFadFZszBBLX/3wwziIeAQgFggAIBYhBO6V9Jr9d3Ftdjr0\
    /0PvRrreN0kdBQJrAemRAh0AAAoJEEPvRrreN0kdAjIA/jb4/KZPQAcuqsZ4d+n2FisfJvti6V/dIjT/uUNXfQjuAP4zj54k9uSD\
    WymGLXihwwlE6y9VgggxyKw+zWySOfOIBrQTcmV2b2tlZEBleGFtcGxlLmNvbYiQBBMWCAA4FiEE7pX0mv13cW12OvT/Q+9Gut43\
    SR0FAmsB6ZECGwMFCwkIBwIGFQoJCAsCBBYCAwECHgECF4AACgkQQ+9Gut43SR3gsAD/S22mGNaDp1LSd/TJVTYF1UOWUg3yuqm0\
    EjQUT6O9y3wBAMhvFA4SwMXyH4rLu3dSb+He3Vf0GHBfBuJAeD/Inh0L";

const REVOKED_SIGNED: &str = "\
    owGbwMvMwCHm/N5t1z1zT1nG0+JJDNmMLycWZ6bnpaYoJFUqFKWW5WenpnR0sTCIcTAYiSmyvJv6Zdbf8sLcMqsv/2EaWZlAukRk\
    oKodUisScwtyUvWS83MZuDgFYMoqJjMyvP1yg+3jnGtmxsyyD7Wvafj/9G4uCuZ5E1DI9LY+xkEpi5GhiXdn3/Onh3Lzpf5smnPy\
    6ttrFx9/knhk3ist9OwSh8cRJgA=";

const TEXT: &str = "\
    owGbwMvMyCFm4a+mNbnq+AHG0+IlDNmMLycWZ6bnpaYoJFUqpKYYmZoaWnZ0sTCKcTAYiSmyMP1h172qc4UpYsm8xTCNrEwgXSIy\
    UNUOqRWJuQU5qXrJ+bkMXJwCMGV/LRj+u29WubFmUkBdELfGjWX9ITfyVwRwVRQb3jHyuLr9U9v9N4wMC95/YIs8XsGWWc0/K8O6\
    6tJ7UyHjf+u0DMVrkpXu/SjiAgA=";

const DETACHED: &str = "\
    iIoEABYIADIWIQQC/Act1SzUAliknqM4TyYqk3rHwAUCawHpkRQcZWQyNTUxOUBleGFtcGxlLmNvbQAKCRA4TyYqk3rHwJX2APsG\
    aaD14ZQIld4S+ETDprDIu04QJ42XqkB2kEZB/wjGhQEAlL4rgiH8hF1YaVMum+k6LIzqiDZCUpq9rdD4Pptu7Q0=";

const PLAIN: &str = "\
    kA0DAAgWOE8mKpN6x8AByxdiAGsB6ZJzaWduZWQgYnkgZWQyNTUxOYiKBAAWCAAyFiEEAvwHLdUs1AJYpJ6jOE8mKpN6x8AFAmsB\
    6ZIUHGVkMjU1MTlAZXhhbXBsZS5jb20ACgkQOE8mKpN6x8AvoQD/WXDcLnXSThU08HN6O0TnWE2g7DiXrPnO4QT8GssPSBgA/Aqx\
    7REhsrLr9Kej2CSslYT+JYRK4Uu+L0kGDb48XjUC";

const TWICE: &str = "\
    owGbwMvMwCGWH77pZc7KQG6GCWCuhb+a1uSq4wcYTwslMWQzvpxUnJmel5qiUFKemZza0cXCIMbBYCSmyML0h133qs4Vpogl8xbD\
    9LAygTSIyKSmGJmaGlo6pFYk5hbkpOol5+cycHEKwJQ9cGX47z7/39Im76pDkyJcHOUsWRh7l+/1Kt53wHf7xf3PX83IXsHIcGBC\
    YNod2fNcF7fVTrXIsXucxv8zNsRaJX5lz8HyfYtXc3S0gd2iB3RLRcysq0+D/9p8bEgth3kH4hYBmeLSJHR3wJSw3GH4H6fbdr7/\
    6D6VNYlM5yYeWidm0ylf+/OH8RHvz91H5ildnsbIcOiLw9vbbCcT3XYIT2Aun2kl5HPdUiHz3uSqjxv3f7DO5AIA";

const LEGACY_KEY: &str = "\
    mQENBGsB/MsBCAC7sgZ/poyYRnnQU0b1LmfJHPp/MD0Vb4qq4L+I49dTgfZxlC87/6LDbMu0jFeiSUYMp86PmA4JIuKVerXhCJ7b\
    Nj9oZSe6L5bFIkMqN9BSH7/5ed9cxFULcndHUAwI9qWo4VDxuAVcGYRmEtmJok/Hzq0R8ugg5y87h/PNSFyUMWHPswSz5/TmbuVt\
    h0Shw71IsTfBHHB0YFMO363wqQnvEECnqAMVUgdp3uE5J2c1f813/GT/zic6y5Jhkddw774vZpjp4uBFz/NmVq5RPSh/EWR0q8wv\
    6Eq0RQgrmDDcpmbyUlRmtX9bim9DhuW87CM/iOGvVZiTt9UlYeLa01gtABEBAAG0EmxlZ2FjeUBleGFtcGxlLmNvbYkBTgQTAQIA\
    OBYhBJpK6Xa4ZOJqGYi4p6VQ72RhAMxBBQJrAfzLAhsDBQsJCAcCBhUKCQgLAgQWAgMBAh4BAheAAAoJEKVQ72RhAMxBuLYH/R4V\
    eIPnnN5ucmC8wwI0AKvdM5JVqg+YxFa3kPt4RJbMWt/BC6HbD8iqCVEfJjBq9LvJPrsAq7WSikebvdaiFYTmotELBEvx8vWgCh5n\
    /9EjZZwOYpdyF+zUA6PUwOLYZD0wtqt2lgMSwnTGU/Ux80L1lhL0uaiFIpQ/GLpja6oXwO2dqhZja9gpEgS4lgEOO2WIx3CnXGar\
    5laaRMpYUEGNztPJHWIQoBcOpLivOemtLwRdvxtw0IeG9pqq5F7uIMqltGh1uAWR9/m81K1fTsrRhyFkfyVv9SN5m5f/c2Pt389u\
    AEqC4s1QEbh1iv5ZT+3ftZEWQTP14VJk3fC5Cvg=";

const LEGACY_SIGNED: &str = "\
    owGbwMvMwMW4NOB9SiLDGUfG02JJDNmMf04XZ6bnpaYoJFUq5KSmJyZXdjK6szAwcjEYiimyzPJ6WbYj5VGWZMeO5TCNrEwgXcIy\
    ENUOqRWJuQU5qXrJ+bkMXJwCMFVmc9j/p5zmrK3ZuZ/1hbJoO99Njp+tB332/HhTajLlxDuJ9fJ9wQ+/L1nROOuj4yXHVwoRgi9m\
    fJ+YWrhGY9bpr8bLWVpvvct+sKqC3T37vsD3Y9KdT0w2n7l+iet496PnSsoGzDNKdtWo7TTWlDSM/nWszezVxQOZhqxdhQ8lDDfc\
    i54yz+P1HuF9x7/c+xtmezJonX+01MSJMqXxcnIJ1l7uy79t4d2x9UXkjzVLXot/k91wJ4qjpaVqaeD/qBZOzkzLD5m5b2c7uux/\
    GZkVxXvz+L+pXgIFkTMSWRZo3rqVf7D6we+YqYtfH2fUqz5mU5r7IUwu89OpH1tcLN2Ylq20mLKLV3fBL/51n7def8CSeBIA";

const LEGACY_SHA1: &str = "\
    owGbwMvMwMS4NOB9SiLDGUfG02JJDNmMf04XZ6bnpaYoJFUq5KSmJyZXdjK6szAwMjEYiimyzPJ6WbYj5VGWZMeO5TCNrEwgXcIy\
    ENUOqRWJuQU5qXrJ+bkMXJwCMFUSM9j/55Qcvxhbonpyqf7+v/f7DYVr6tbuOHx8fYRixKXHmau3Llu3M1Sq/AMPz1MvBWVZxxbB\
    p2e+aiw/81unYcaLZ38/bph0RMGkieVIV/VcA9aU0gUZfMffPnpfz81/levoLqNvpndeHpX8mLap49DdBX/S7nqv1J0282jeN4a/\
    R3t3bdvPy+FZwhW6N5Tp53T7Q8fe/7p6fmK1p4bUnxs/zJcfETR1T/D/o3FE+JMb00NOliyzjGz/DaXz2R7sZzU7oP7O5uRJB8+z\
    q1M/pMbkujHZH4q1vZEjsJLHWahnR9nmlIv+tzZYWCcpfWnLvhR8KdVF2PPCEq/AN48PJnfsigwV2sGqFviAoy57ggt3OAA=";

/// Some time after all of these were made, in 2027.
const NOW: u64 = 1_800_000_000;

fn bytes(text: &str) -> Vec<u8> {
    STANDARD.decode(text.replace(char::is_whitespace, "")).unwrap()
}

fn keyring(text: &str) -> Keyring {
    Keyring::parse(&bytes(text)).unwrap()
}

fn verified(message: &str, key: &str) -> Result<String, Error> {
    verify(&bytes(message), &[keyring(key)], NOW).map(|text| String::from_utf8(text).unwrap())
}

#[test]
fn what_gpg_signs_is_accepted() {
    for (message, key, who) in [
        (RSA2048_SIGNED, RSA2048_KEY, "rsa2048"),
        (ED25519_SIGNED, ED25519_KEY, "ed25519"),
        (NISTP256_SIGNED, NISTP256_KEY, "nistp256"),
        (NISTP384_SIGNED, NISTP384_KEY, "nistp384"),
        (SUB_SIGNED, SUB_KEY, "sub"),
        // Its own signature is made with SHA-1, as on keys of some vendors.
        (LEGACY_SIGNED, LEGACY_KEY, "legacy"),
        (PLAIN, ED25519_KEY, "ed25519"),
    ] {
        assert_eq!(verified(message, key).unwrap(), format!("signed by {who}"));
        assert_eq!(keyring(key).users, [format!("{who}@example.com")]);
    }
    // Several keyrings, and several keys in one.
    let both = [bytes(RSA2048_KEY), bytes(SUB_KEY)].concat();
    let rings = [keyring(NISTP256_KEY), Keyring::parse(&both).unwrap()];
    assert!(verify(&bytes(SUB_SIGNED), &rings, NOW).is_ok());
}

#[test]
fn others_are_refused() {
    for (message, key, expected) in [
        (ED25519_SIGNED, NISTP256_KEY, "384F262A937AC7C0, which is not trusted"),
        (EXPIRED_SIGNED, EXPIRED_KEY, "the key C4AC3D3EC94906CF has expired"),
        (REVOKED_SIGNED, REVOKED_KEY, "is revoked"),
        (LEGACY_SHA1, LEGACY_KEY, "hash algorithm 2"),
        (TEXT, ED25519_KEY, "not one text with one signature"),
        (DETACHED, ED25519_KEY, "not one text with one signature"),
        (TWICE, ED25519_KEY, "not one text with one signature"),
        (ED25519_KEY, ED25519_KEY, "not one text with one signature"),
    ] {
        let error = verified(message, key).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    // The key's first day.
    assert!(verify(&bytes(EXPIRED_SIGNED), &[keyring(EXPIRED_KEY)], 1_577_840_401).is_ok());
    // From the future.
    assert_eq!(verify(&bytes(ED25519_SIGNED), &[keyring(ED25519_KEY)], 1_577_840_401), Err(Error::Future));
    assert!(Keyring::parse(b"").is_err() && Keyring::parse(&bytes(ED25519_SIGNED)).is_err());
    // A key without its self-signature, and a subkey without its binding.
    let whole = bytes(ED25519_KEY);
    let packets = packet::packets(&whole).unwrap();
    let bare = Keyring::parse(&whole[..packets[0].body.len() + 2]);
    assert!(matches!(bare, Err(Error::NoKey)));
}

#[test]
fn no_changed_byte_changes_what_is_accepted() {
    for (message, key) in [(PLAIN, ED25519_KEY), (SUB_SIGNED, SUB_KEY), (NISTP256_SIGNED, NISTP256_KEY)] {
        let (message, key) = (bytes(message), bytes(key));
        let good = verify(&message, &[Keyring::parse(&key).unwrap()], NOW).unwrap();
        let mut refused = 0;
        for at in 0..message.len() {
            for bit in 0..8 {
                let mut changed = message.clone();
                changed[at] ^= 1 << bit;
                match verify(&changed, &[Keyring::parse(&key).unwrap()], NOW) {
                    Ok(text) => assert_eq!(text, good, "byte {at}"),
                    Err(_) => refused += 1,
                }
            }
        }
        assert!(refused > message.len() * 5, "{refused}");
        for at in 0..key.len() {
            let mut changed = key.clone();
            changed[at] ^= 0x10;
            if let Ok(keyring) = Keyring::parse(&changed)
                && let Ok(text) = verify(&message, &[keyring], NOW)
            {
                assert_eq!(text, good, "byte {at} of the key");
            }
        }
        for length in 0..message.len() {
            assert!(verify(&message[..length], &[Keyring::parse(&key).unwrap()], NOW).is_err());
        }
    }
}
