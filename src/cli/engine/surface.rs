//! Podman's commands and flags, by name: what is not ours yet is refused as "not supported yet"
//! rather than as a typing error.

/// Every command, words joined by a space; aliases stand as commands of their own.
pub const COMMANDS: &str = "\
     artifact artifact/add artifact/extract artifact/inspect artifact/list artifact/ls artifact/pull \
     artifact/push artifact/remove artifact/rm attach auto-update build builder builder/build \
     builder/prune buildx buildx/build buildx/inspect buildx/prune buildx/version commit completion compose container container/attach \
     container/checkpoint container/cleanup container/clone container/commit container/cp \
     container/create container/diff container/exec container/exists container/export container/init \
     container/inspect container/kill container/list container/logs container/ls container/mount \
     container/pause container/port container/prune container/ps container/rename container/restart \
     container/restore container/rm container/run container/runlabel container/start container/stats \
     container/stop container/top container/umount container/unmount container/unpause container/update \
     container/wait context context/create context/inspect context/list context/ls context/remove \
     context/rm context/use cp create diff events exec export farm farm/build farm/create farm/list \
     farm/ls farm/remove farm/rm farm/update generate generate/kube generate/spec generate/systemd \
     healthcheck healthcheck/run history image image/build image/diff image/exists image/history \
     image/import image/inspect image/list image/load image/ls image/mount image/prune image/pull \
     image/push image/rm image/save image/scp image/search image/sign image/tag image/tree image/trust \
     image/trust/set image/trust/show image/umount image/unmount image/untag images import info init \
     inspect kill kube kube/apply kube/down kube/generate kube/play load login logout logs machine \
     machine/client9p machine/cp machine/info machine/init machine/inspect machine/list machine/ls \
     machine/os machine/os/apply machine/os/upgrade machine/reset machine/rm machine/server9p machine/set \
     machine/ssh machine/start machine/stop manifest manifest/add manifest/annotate manifest/create \
     manifest/exists manifest/inspect manifest/push manifest/remove manifest/rm mount network \
     network/connect network/create network/disconnect network/exists network/inspect network/list \
     network/ls network/prune network/reload network/remove network/rm network/update pause play \
     play/kube pod pod/clone pod/create pod/exists pod/inspect pod/kill pod/list pod/logs pod/ls \
     pod/pause pod/prune pod/ps pod/restart pod/rm pod/start pod/stats pod/stop pod/top pod/unpause port \
     ps pull push quadlet quadlet/cat quadlet/install quadlet/list quadlet/ls quadlet/print quadlet/rm \
     rename restart rm rmi run save search secret secret/create secret/exists secret/inspect secret/list \
     secret/ls secret/rm start stats stop system system/check system/connection system/connection/add \
     system/connection/default system/connection/list system/connection/mv system/connection/remove \
     system/connection/rename system/df system/dial-stdio system/events system/hyperv-prep system/info \
     system/locks system/migrate system/prune system/renumber system/reset system/service tag top umount \
     unmount unpause unshare untag update version volume volume/create volume/exists volume/export \
     volume/import volume/inspect volume/list volume/ls volume/mount volume/prune volume/reload \
     volume/remove volume/rm volume/unmount wait";

/// The flags of each command that exists here; `""` holds the global ones. One word a flag: the
/// letter and the long name, parted by a comma, and `=` if it takes a value.
pub const FLAGS: &[(&str, &str)] = &[
    (
        "",
        "\
     cdi-spec-dir= cgroup-manager= config= conmon= c,connection= events-backend= h,help hooks-dir= identity= \
     imagestore= log-level= module= network-config-dir= out= r,remote root= runroot= runtime= \
     runtime-flag= ssh= storage-driver= storage-opt= syslog tls-ca= tls-cert= tls-details= tls-key= \
     tmpdir= transient-store url= v,version volumepath=",
    ),
    (
        "build",
        "\
     add-host= all-platforms annotation= arch= authfile= build-arg= build-arg-file= build-context= \
     cache-from= cache-to= cache-ttl= cap-add= cap-drop= cert-dir= cgroup-parent= cgroupns= compat-volumes \
     compress compression-format= compression-level= cpp-flag= cpu-period= cpu-quota= c,cpu-shares= \
     cpuset-cpus= cpuset-mems= created-annotation creds= cw= decryption-key= device= \
     D,disable-compression disable-content-trust dns= dns-option= dns-search= env= f,file= \
     force-compression force-rm format= from= group-add= h,help hooks-dir= http-proxy identity-label \
     ignorefile= iidfile= iidfile-raw= inherit-annotations= inherit-labels ipc= isolation= jobs= label= \
     layer-label= layers logfile= logsplit= manifest= m,memory= memory-swap= metadata-file= mount= \
     network,net= no-cache no-hostname no-hosts omit-history os= os-feature= os-version= o,output= pid= \
     platform= pull= q,quiet retry= retry-delay= rewrite-timestamp rm runtime= runtime-flag= save-stages \
     sbom= sbom-image-output= sbom-image-purl-output= sbom-merge-strategy= sbom-output= sbom-purl-output= \
     sbom-scanner-command= sbom-scanner-image= secret= security-opt= shm-size= sign-by= \
     skip-unused-stages source-date-epoch= source-policy-file= squash squash-all ssh= stage-labels stdin \
     t,tag= target= timestamp= tls-verify ulimit= unsetannotation= unsetenv= unsetlabel= userns= \
     userns-gid-map= userns-gid-map-group= userns-uid-map= userns-uid-map-user= uts= variant= v,volume= \
     allow= attest= builder= call= check no-cache-filter=",
    ),
    (
        "builder prune",
        "\
     a,all f,force filter= keep-storage= max-used-space= min-free-space= reserved-space= verbose",
    ),
    (
        "pull",
        "\
     a,all-tags arch= authfile= cert-dir= creds= decryption-key= disable-content-trust h,help os= \
     platform= policy= q,quiet retry= retry-delay= tls-verify variant=",
    ),
    (
        "load",
        "\
     h,help i,input= q,quiet",
    ),
    (
        "login",
        "\
     authfile= cert-dir= compat-auth-file= get-login h,help p,password= password-stdin secret= \
     tls-verify u,username= v,verbose",
    ),
    (
        "logout",
        "\
     a,all authfile= compat-auth-file= h,help",
    ),
    ("network create", "route="),
    (
        "push",
        "\
     authfile= cert-dir= compress compression-format= compression-level= creds= digestfile= \
     disable-content-trust encrypt-layer= encryption-key= force-compression f,format= h,help q,quiet \
     remove-signatures retry= retry-delay= sign-by= sign-by-sigstore= sign-by-sigstore-private-key= \
     sign-by-sq-fingerprint= sign-passphrase-file= tls-verify",
    ),
    (
        "save",
        "\
     compress format= h,help m,multi-image-archive o,output= q,quiet uncompressed",
    ),
    (
        "images",
        "\
     a,all digests f,filter= format= history no-trunc n,noheading q,quiet sort=",
    ),
    (
        "rmi",
        "\
     a,all f,force i,ignore no-prune",
    ),
    (
        "run",
        "\
     add-host= annotation= arch= a,attach= authfile= blkio-weight= blkio-weight-device= cap-add= \
     cap-drop= cert-dir= cgroup-conf= cgroup-parent= cgroupns= cgroups= chrootdirs= cidfile= \
     conmon-pidfile= cpu-period= cpu-quota= cpu-rt-period= cpu-rt-runtime= c,cpu-shares= cpus= \
     cpuset-cpus= cpuset-mems= creds= decryption-key= d,detach detach-keys= device= device-cgroup-rule= \
     device-read-bps= device-read-iops= device-write-bps= device-write-iops= disable-content-trust dns= \
     dns-option= dns-search= entrypoint= e,env= env-file= env-host env-merge= expose= gidmap= gpus= \
     group-add= group-entry= health-cmd= health-interval= health-log-destination= health-max-log-count= \
     health-max-log-size= health-on-failure= health-retries= health-start-period= health-startup-cmd= \
     health-startup-interval= health-startup-retries= health-startup-success= health-startup-timeout= \
     health-timeout= help h,hostname= hosts-file= hostuser= http-proxy image-volume= init init-path= \
     i,interactive ip= ip6= ipc= l,label= label-file= link-local-ip= log-driver= log-opt= mac-address= \
     m,memory= memory-reservation= memory-swap= memory-swappiness= mount= name= network,net= \
     network-alias= no-healthcheck no-hostname no-hosts oom-kill-disable oom-score-adj= os= passwd \
     passwd-entry= personality= pid= pidfile= pids-limit= platform= pod= pod-id-file= preserve-fd= \
     preserve-fds= privileged p,publish= P,publish-all pull= q,quiet rdt-class= read-only read-only-tmpfs \
     replace requires= restart= retry= retry-delay= rm rmi rootfs sdnotify= seccomp-policy= secret= \
     security-opt= shm-size= shm-size-systemd= sig-proxy stop-signal= stop-timeout= subgidname= \
     subuidname= sysctl= systemd= timeout= tls-verify tmpfs= t,tty tz= uidmap= ulimit= umask= unsetenv= \
     unsetenv-all u,user= userns= uts= variant= v,volume= volumes-from= w,workdir= \
     init-ctr= isolation= kernel-memory= runtime= storage-opt= use-api-socket volume-driver=",
    ),
    (
        "ps",
        "\
     a,all external f,filter= format= h,help n,last= l,latest namespace,ns no-trunc noheading p,pod \
     q,quiet s,size sort= sync w,watch=",
    ),
    (
        "events",
        "\
     f,filter= format= help no-trunc since= stream until=",
    ),
    (
        "exec",
        "\
     cidfile= d,detach detach-keys= e,env= env-file= i,interactive l,latest no-session preserve-fd= \
     preserve-fds= privileged t,tty u,user= w,workdir=",
    ),
    (
        "logs",
        "\
     color f,follow l,latest n,names since= tail= t,timestamps until=",
    ),
    ("cp", "a,archive overwrite"),
    ("image prune", "external"),
    ("system prune", "external"),
    ("start", "all a,attach detach-keys= f,filter= i,interactive l,latest sig-proxy"),
    (
        "container clone",
        "\
     blkio-weight= blkio-weight-device= cpu-period= cpu-quota= cpu-rt-period= cpu-rt-runtime= c,cpu-shares= cpus= \
     cpuset-cpus= cpuset-mems= destroy device-read-bps= device-write-bps= f,force m,memory= \
     memory-reservation= memory-swap= memory-swappiness= name= pod= run",
    ),
    (
        "mount",
        "\
     a,all format= l,latest no-trunc",
    ),
    (
        "port",
        "\
     a,all l,latest",
    ),
    (
        "stats",
        "\
     a,all format= i,interval= l,latest no-reset no-stream no-trunc",
    ),
    (
        "unmount",
        "\
     a,all f,force l,latest",
    ),
    (
        "unshare",
        "\
     h,help rootless-netns",
    ),
    (
        "volume export",
        "\
     help o,output=",
    ),
    (
        "stop",
        "\
     a,all cidfile= f,filter= i,ignore l,latest t,time=",
    ),
    (
        "kill",
        "\
     a,all cidfile= l,latest s,signal=",
    ),
    (
        "rm",
        "\
     a,all cidfile= depend f,filter= f,force i,ignore l,latest t,time= v,volumes",
    ),
    (
        "wait",
        "\
     condition= exit-first-match h,help ignore i,interval= l,latest",
    ),
    (
        "inspect",
        "\
     f,format= l,latest s,size t,type=",
    ),
    (
        "info",
        "\
     f,format=",
    ),
    (
        "container cleanup",
        "\
     a,all exec= l,latest rm rmi stopped-only",
    ),
    (
        "update",
        "\
     blkio-weight= blkio-weight-device= cpu-period= cpu-quota= cpu-rt-period= cpu-rt-runtime= \
     c,cpu-shares= cpus= cpuset-cpus= cpuset-mems= device-read-bps= device-read-iops= device-write-bps= \
     device-write-iops= e,env= health-cmd= health-interval= health-log-destination= health-max-log-count= \
     health-max-log-size= health-on-failure= health-retries= health-start-period= health-startup-cmd= \
     health-startup-interval= health-startup-retries= health-startup-success= health-startup-timeout= \
     health-timeout= l,latest m,memory= memory-reservation= memory-swap= memory-swappiness= \
     no-healthcheck pids-limit= restart= ulimit= unsetenv=",
    ),
    (
        "version",
        "\
     f,format= h,help",
    ),
    (
        "completion",
        "\
     f,file= no-desc",
    ),
    (
        "restart",
        "\
     a,all cidfile= f,filter= l,latest running t,time=",
    ),
    (
        "pause",
        "\
     a,all cidfile= f,filter= l,latest",
    ),
    (
        "unpause",
        "\
     a,all cidfile= f,filter= l,latest",
    ),
    (
        "top",
        "\
     h,help l,latest",
    ),
    (
        "container diff",
        "\
     format= l,latest",
    ),
    (
        "diff",
        "\
     format= l,latest",
    ),
    (
        "export",
        "\
     h,help o,output=",
    ),
    (
        "healthcheck run",
        "\
     help ignore-result",
    ),
    (
        "history",
        "\
     format= h,help H,human no-trunc q,quiet",
    ),
    (
        "image tree",
        "\
     h,help whatrequires",
    ),
    (
        "search",
        "\
     authfile= cert-dir= compatible creds= f,filter= format= h,help limit= list-tags no-trunc tls-verify",
    ),
    (
        "image trust",
        "\
     f,pubkeysfile= h,help j,json n,noheading raw t,type=",
    ),
    (
        "tag",
        "\
     h,help",
    ),
    (
        "untag",
        "\
     h,help",
    ),
    (
        "image diff",
        "\
     format=",
    ),
    (
        "container exists",
        "\
     external",
    ),
    (
        "container prune",
        "\
     filter= f,force",
    ),
    (
        "image exists",
        "\
     h,help",
    ),
    (
        "volume create",
        "\
     d,driver= gid= help ignore l,label= o,opt= uid=",
    ),
    (
        "volume exists",
        "\
     h,help",
    ),
    (
        "volume inspect",
        "\
     a,all f,format= help",
    ),
    (
        "volume ls",
        "\
     f,filter= format= help n,noheading q,quiet",
    ),
    (
        "volume prune",
        "\
     a,all dry-run filter= f,force help",
    ),
    (
        "volume rm",
        "\
     a,all f,force help t,time=",
    ),
    (
        "commit",
        "\
     a,author= c,change= config= f,format= iidfile= include-volumes m,message= p,pause q,quiet s,squash",
    ),
    (
        "import",
        "\
     arch= c,change= h,help m,message= os= q,quiet variant=",
    ),
    (
        "manifest add",
        "\
     all annotation= arch= artifact artifact-config= artifact-config-type= artifact-exclude-titles \
     artifact-layer-type= artifact-subject= artifact-type= authfile= cert-dir= creds= features= os= os- \
     version= tls-verify variant=",
    ),
    (
        "manifest annotate",
        "\
     annotation= arch= features= index os= os-features= os-version= subject= variant=",
    ),
    (
        "manifest create",
        "\
     all a,amend annotation= tls-verify",
    ),
    (
        "manifest exists",
        "\
     h,help",
    ),
    (
        "manifest inspect",
        "\
     authfile= tls-verify",
    ),
    (
        "manifest push",
        "\
     add-compression= all authfile= cert-dir= compression-format= compression-level= creds= digestfile= \
     force-compression f,format= q,quiet remove-signatures rm sign-by= sign-by-sigstore= sign-by- \
     sigstore-private-key= sign-by-sq-fingerprint= sign-passphrase-file= tls-verify",
    ),
    (
        "manifest rm",
        "\
     i,ignore",
    ),
    (
        "artifact add",
        "\
     annotation= a,append file-type= replace type=",
    ),
    (
        "artifact extract",
        "\
     digest= title=",
    ),
    (
        "artifact inspect",
        "\
     f,format=",
    ),
    (
        "artifact ls",
        "\
     format= no-trunc n,noheading",
    ),
    (
        "artifact pull",
        "\
     authfile= cert-dir= creds= decryption-key= h,help q,quiet retry= retry-delay= tls-verify",
    ),
    (
        "artifact push",
        "\
     authfile= cert-dir= creds= digestfile= q,quiet retry= retry-delay= sign-by= sign-by-sigstore= sign- \
     by-sigstore-private-key= sign-by-sq-fingerprint= sign-passphrase-file= tls-verify",
    ),
    (
        "artifact rm",
        "\
     a,all i,ignore",
    ),
];
